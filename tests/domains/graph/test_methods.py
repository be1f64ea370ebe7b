"""Objective, posterior, prior, estimator, schedule by settings: a run, or one line why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import domains
from core.runtime import cli, engine
from core.runtime.errors import UserError
from core.variational.objectives import Loss

SMOKE = Path(__file__).resolve().parents[3] / "configs" / "graph" / "smoke.yaml"
VGAE = "model.kind=vgae"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared airline routes."""
    folder = tmp_path_factory.mktemp("airline") / "data"
    domains.load_domain("graph").prepare(cli.load(domains, SMOKE, ()), folder)
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        ("objective.kind=iwae", "objective.samples=16", "prior.kind=vampprior"),
        ("objective.kind=iwae", VGAE, "model.self_links=false", "estimator.kind=dreg"),
        ("objective.kind=renyi", VGAE, "prior.kind=learned-normal"),
        ("objective.kind=vis", VGAE, "model.self_links=false", "estimator.kind=score"),
        ("objective.kind=capacity", "schedule.kind=linear"),
        ("objective.kind=autogen", "schedule.kind=cosine"),
        ("objective.kind=multi-beta", "objective.betas=[1, 2]", "schedule.kind=cyclical"),
        ("objective.kind=rate-distortion", "estimator.kind=path"),
        ("objective.kind=info-vae", VGAE),
        ("objective.kind=wae", "objective.discrepancy=sliced-wasserstein"),
        ("objective.kind=dip", VGAE),
        (VGAE, "posterior.kind=low-rank-normal", "prior.kind=mixture"),
        (VGAE, "posterior.kind=full-normal", "prior.kind=vampprior"),
        (VGAE, "posterior.kind=mixture", "prior.kind=autoregressive"),
        ("model.kind=linear-vgae", "posterior.kind=flow", "prior.kind=flow"),
        (VGAE, "posterior.kind=flow", "posterior.flow=planar", "estimator.kind=path"),
        (VGAE, "posterior.kind=von-mises-fisher", "prior.kind=spherical-uniform"),
        (VGAE, "posterior.kind=power-spherical", "prior.kind=spherical-uniform"),
        (VGAE, "model.self_links=false", "objective.samples=2", "estimator.kind=vimco"),
    ],
)
def test_a_method_is_a_matter_of_settings(data: Path, changes: tuple[str, ...]) -> None:
    config = cli.load(domains, SMOKE, changes)
    domain = domains.load_domain("graph")
    torch.manual_seed(0)
    model, objective = domain.model(config, data), engine.build_objective(config)
    batch = domain.batches(config, data, "train").batch(0, 0)
    evidence = model.evidence(batch, objective.samples)
    engine.require_estimator(evidence, config)
    loss = objective(evidence, 0.5)
    loss.loss.backward()
    assert bool(torch.isfinite(loss.loss))
    assert bool(torch.isfinite(loss.value))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
    assert bool(torch.isfinite(model.eval().embed(batch)).all())


def first_loss(config: Any, data: Path) -> Loss:
    domain, objective = domains.load_domain("graph"), engine.build_objective(config)
    model = domain.model(config, data)
    batch = domain.batches(config, data, "train").batch(0, 0)
    with engine.reasons(config):
        return objective(model.evidence(batch, objective.samples))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (("prior.kind=linear-dynamics",), "nodes have no order in time"),
        (("prior.kind=class-conditional",), "links are predicted without labels"),
        (("prior.kind=codebook",), "a node's latent is a vector"),
        (("likelihood.kind=normal",), "two nodes are linked or not"),
        (("posterior.kind=categorical",), "links are inner products of real vectors"),
        (("posterior.kind=full-normal",), "'cosine-vgae' makes mean and scale"),
        ((VGAE, "posterior.kind=power-spherical"), "set prior.kind to 'spherical-uniform'"),
        ((VGAE, "prior.kind=spherical-uniform"), "set posterior.kind to 'von-mises-fisher'"),
        (("model.kind=gae", "prior.kind=mixture"), "'gae' has no noise"),
        (("objective.kind=iwae", "estimator.kind=path"), "its gradient is biased"),
        (("objective.kind=renyi", "schedule.kind=linear"), "has no weight to schedule"),
        (("schedule.kind=linear", "schedule.warmup=1"), "should be less than 1"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_runs(
    changes: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        cli.load(domains, SMOKE, changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ((VGAE, "posterior.kind=flow", "posterior.flow=maf"), "'maf' is slow in the sample"),
        (("objective.kind=beta-tc", "objective.examples=9"), "batch of at least 2 is needed"),
        (("objective.kind=energy",), "use objective 'elbo'"),
        (("model.kind=gae", "objective.kind=wae"), "the model has no latents"),
        ((VGAE, "estimator.kind=score"), "penalties.*'self_links'"),
        (("estimator.kind=sigma-points",), "points for the dimensions of one example"),
        ((VGAE, "estimator.kind=rejection"), "must be a Gamma"),
    ],
)
def test_what_the_mathematics_refuses_is_one_line(
    data: Path, changes: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        first_loss(cli.load(domains, SMOKE, changes), data)
    assert "\n" not in str(caught.value)
