from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from digits import DigitsVAE, digits
from torch import Tensor, nn

from core.runtime.errors import Interrupted, UserError
from core.runtime.library import fit
from core.variational.distributions import DiagonalNormal, LogitsBernoulli
from core.variational.evidence import Evidence, Latent
from core.variational.priors import StandardNormal

FAST = {"training.epochs": 2, "batch_size": 300, "compute.threads": 1}


def trained(out: Path, **changes: Any) -> tuple[DigitsVAE, list[dict[str, Any]]]:
    torch.manual_seed(0)
    images, _ = digits()
    settings = FAST | {name.replace("__", "."): value for name, value in changes.items()}
    model = fit(DigitsVAE(), images[:900], images[900:1200], out, settings)
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return model, rows


def test_training_a_model_of_ones_own_raises_its_bound(tmp_path: Path) -> None:
    model, rows = trained(tmp_path, training__epochs=5, training__learning_rate=0.01)
    assert rows[-1]["valid/elbo"] > rows[0]["valid/elbo"] + 10
    assert not model.training


def test_the_same_training_ends_with_the_same_bytes_and_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    trained(tmp_path / "a")
    trained(tmp_path / "b")
    again, _ = trained(tmp_path / "b")  # already at its end
    files = [
        path.relative_to(tmp_path / "a") for path in (tmp_path / "a").glob("*/*/*.safetensors")
    ]
    assert files
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert not again.training


def test_objective_and_schedule_are_settings_here_too(tmp_path: Path) -> None:
    _, rows = trained(tmp_path, objective__kind="iwae", objective__samples=4)
    assert {"valid/elbo", "valid/iwae"} <= set(rows[0])
    assert rows[-1]["valid/iwae"] >= rows[-1]["valid/elbo"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__epoch": 3}, "unknown key 'training.epoch'; did you mean 'epochs'"),
        ({"objective__kind": "iwe"}, "objective.kind"),
        ({"estimator__kind": "vimco"}, "baseline is from an example's other samples"),
        ({"schedule__kind": "linear", "schedule__warmup": 1.5}, "schedule.warmup"),
        ({"estimator__kind": "path"}, "this model draws its latents itself"),
        ({"objective__kind": "energy"}, "use objective 'elbo'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trained(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_values_outside_the_support_say_how_to_scale(tmp_path: Path) -> None:
    images, _ = digits()
    grey = images * 255
    with pytest.raises(UserError, match=r"up to 255; Bernoulli needs values in \[0, 1\]: divide"):
        fit(DigitsVAE(), grey[:900], grey[900:1200], tmp_path, FAST)


class Shared(nn.Module):
    """Two latent groups, the second with a prior made of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.between = nn.Linear(64, 16), nn.Linear(4, 4)
        self.decoder, self.prior = nn.Linear(4, 64), StandardNormal()

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        top_loc, top_scale, loc, scale = self.encoder(batch).chunk(4, -1)
        top = Latent.draw("z2", DiagonalNormal(top_loc, top_scale.exp()), self.prior, samples)
        prior = DiagonalNormal(self.between(top.value), torch.ones(()))
        z = Latent.draw("z1", DiagonalNormal(loc, scale.exp()), prior, samples)
        return Evidence({"x": LogitsBernoulli(self.decoder(z.value)).log_prob(batch)}, [top, z])


def test_a_hierarchy_is_a_list_of_latents(tmp_path: Path) -> None:
    images, _ = digits()
    fit(Shared(), images[:900], images[900:1200], tmp_path, FAST)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert {"train/kl/z1", "train/kl/z2"} <= set(rows[-1])


def test_stopped_by_a_signal_it_says_how_to_go_on_and_ends_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    images, _ = digits()

    class Stopping(DigitsVAE):
        """Sends itself SIGINT at its fifth batch of training, once."""

        asked = 0

        def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
            if self.training:
                type(self).asked += 1
                if type(self).asked == 5:
                    os.kill(os.getpid(), signal.SIGINT)
            return super().evidence(batch, samples)

    def run(out: Path, model: DigitsVAE) -> DigitsVAE:
        return fit(model, images[:900], images[900:1200], out, FAST | {"training.epochs": 4})

    torch.manual_seed(0)
    whole = run(tmp_path / "whole", DigitsVAE())
    torch.manual_seed(0)
    with pytest.raises(Interrupted, match=r"call fit with out=.*again to go on"):
        run(tmp_path / "stopped", Stopping())
    again = run(tmp_path / "stopped", DigitsVAE())
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
