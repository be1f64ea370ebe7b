"""The acceptance checks of the latent structures, each named after its row of the catalogue."""

from __future__ import annotations

import math

import pytest
import torch
from digits import digits, fit
from torch import Tensor, nn

from core.variational.diagnostics import information
from core.variational.diagnostics.information import Information
from core.variational.evidence import Evidence, Latent
from core.variational.likelihoods import (
    AutoregressiveLikelihood,
    BernoulliLikelihood,
    NormalLikelihood,
)
from core.variational.objectives import ELBO, Capacity, InfoVAE, Objective
from core.variational.posteriors import CategoricalPosterior, DiagonalNormalPosterior
from core.variational.priors import Codebook, StandardNormal
from core.variational.schedules import Linear
from core.variational.structures import Relaxed, masked_latent, product_of_experts

CLASSES, SEEDS = 10, 5


class JointVAE(nn.Module):
    """Continuous and discrete latents side by side: two latents and no structure of its own."""

    def __init__(self, latent: int = 6, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.ReLU())
        self.style = DiagonalNormalPosterior(hidden, latent)
        self.digit = CategoricalPosterior(hidden, CLASSES)
        self.normal, self.uniform = StandardNormal(), Codebook(CLASSES, learned_weights=False)
        self.decoder = nn.Sequential(nn.Linear(latent + CLASSES, hidden), nn.ReLU())
        self.likelihood = BernoulliLikelihood(hidden, 64)

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        features = self.encoder(batch)
        style = Latent.draw("style", self.style(features), self.normal, samples)
        digit = Latent.draw("digit", self.digit(features), self.uniform, samples, Relaxed(1.0))
        hidden = self.decoder(torch.cat([style.value, digit.value], -1))
        return Evidence({"x": self.likelihood(hidden).log_prob(batch)}, [style, digit])


@pytest.mark.slow
def test_s159_joint_vae_holds_both_capacities_and_finds_the_digits() -> None:
    """The discrete capacity first, the continuous one after.

    Raised together, the style takes what the class could tell; and with a large weight a constant
    class meets its capacity at once, for the KL to a uniform prior is log 10 for any certain one.
    """
    from sklearn.metrics import adjusted_rand_score

    images, classes = digits()
    capacities = {"style": 0.0, "digit": math.log(CLASSES)}
    first = Capacity(0.0, 1.0, schedule=Linear(0.5), capacities=capacities)
    then = Capacity(0.0, 5.0, capacities=capacities | {"style": 5.0})
    agreement = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        model = fit(JointVAE(), first, images, 800, learning_rate=1e-2)
        model = fit(model, then, images, 400, learning_rate=1e-2)
        with torch.no_grad():
            evidence = model.evidence(images)
            terms = then(evidence).terms
            found = model.digit(model.encoder(images)).logits.argmax(-1)
        assert all(latent.closed_form for latent in evidence.latents)
        assert float(evidence.latents[1].kl().max()) <= math.log(CLASSES) + 1e-5
        assert abs(float(terms["kl/style"]) - 5.0) <= 0.5
        assert abs(float(terms["kl/digit"]) - math.log(CLASSES)) <= 0.5
        agreement.append(adjusted_rand_score(classes, found))
    assert max(agreement) >= 0.3, agreement


class LossyVAE(nn.Module):
    """A decoder that sees the whole image before each pixel, and could do without a latent."""

    def __init__(self, latent: int = 4, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, hidden), nn.ELU())
        self.posterior, self.prior = DiagonalNormalPosterior(hidden, latent), StandardNormal()
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ELU())
        self.likelihood = AutoregressiveLikelihood(hidden, (8, 8), 7, channels=16)

    def evidence(self, batch: Tensor, samples: int = 1) -> Evidence:
        z = Latent.draw("z", self.posterior(self.encoder(batch)), self.prior, samples)
        likelihood = self.likelihood(self.decoder(z.value))
        return Evidence({"x": likelihood.log_prob(batch.view(-1, 8, 8))}, [z])


@pytest.mark.slow
def test_s021_with_an_autoregressive_decoder_info_vae_keeps_more_information_than_the_elbo() -> (
    None
):
    r"""The lower bound of the one above the upper bound of the other, with their errors.

    :math:`\lambda = 10`: weighed 300, the noise of the MMD of 128 draws drowns the likelihood, and
    the information falls below that of the ELBO.
    """
    images, _ = digits()

    def told(objective: Objective) -> Information:
        torch.manual_seed(0)
        model = fit(LossyVAE(), objective, images, 600)
        found = information(model, [images], rows=500)["z"]
        assert isinstance(found, Information)
        return found

    elbo, info = told(ELBO()), told(InfoVAE(1.0, 10.0))
    assert elbo.upper.interval is not None
    assert info.lower.interval is not None
    assert info.lower.interval[0] > elbo.upper.interval[1] + 1.0


SHARED, PRIVATE, FEATURES = 4, 3, 16


class SharedAndPrivate(nn.Module):
    """Two linear views of one shared latent, each with a latent of its own; a view may miss."""

    def __init__(self) -> None:
        super().__init__()
        both = range(2)
        self.shared = nn.ModuleList(DiagonalNormalPosterior(FEATURES, SHARED) for _ in both)
        self.private = nn.ModuleList(DiagonalNormalPosterior(FEATURES, PRIVATE) for _ in both)
        self.prior = StandardNormal()
        self.likelihood = nn.ModuleList(
            NormalLikelihood(SHARED + PRIVATE, FEATURES, learned="shared") for _ in both
        )

    def shared_posterior(self, views: Tensor, present: Tensor) -> torch.distributions.Distribution:
        experts = [head(view) for head, view in zip(self.shared, views, strict=True)]
        return product_of_experts(self.prior(experts[0]), experts, present)

    def evidence(self, batch: tuple[Tensor, Tensor], samples: int = 1) -> Evidence:
        views, present = batch
        shared = Latent.draw("shared", self.shared_posterior(views, present), self.prior, samples)
        latents, terms = [shared], {}
        for index, view in enumerate(views):
            there, name = present[:, index], f"view{index}"
            own = masked_latent(name, self.private[index](view), self.prior, there, samples)
            likelihood = self.likelihood[index](torch.cat([shared.value, own.value], -1))
            terms[name] = likelihood.log_prob(view).where(there, 0.0)
            latents.append(own)
        return Evidence(terms, latents)


def two_views(examples: int) -> tuple[Tensor, Tensor]:
    """Return the views, (view, example, feature), and what they share.

    A view's directions are orthogonal, so that the posteriors of shared and private factors are
    independent. Where they are not, a factorised posterior that is learned mixes the two.
    """
    constant = torch.Generator().manual_seed(11)
    weights = torch.randn(2, FEATURES, SHARED + PRIVATE, generator=constant)
    weights = 2 * torch.linalg.qr(weights).Q.mT
    shared = torch.randn(examples, SHARED)
    own = torch.randn(2, examples, PRIVATE)
    latents = torch.cat([shared.expand(2, -1, -1), own], -1)
    return latents @ weights + 0.1 * torch.randn(2, examples, FEATURES), shared


def retrieval(queries: Tensor, keys: Tensor) -> float:
    """Return the share of queries whose nearest key is their own."""
    return float((torch.cdist(queries, keys).argmin(1) == torch.arange(len(keys))).float().mean())


def explained(code: Tensor, factors: Tensor) -> float:
    """Return the share of the factors' variance that a linear probe of a code explains.

    Fitted on one half and held to the other.
    """
    inputs = torch.cat([code, torch.ones(len(code), 1)], -1)
    half = len(code) // 2
    probe = torch.linalg.lstsq(inputs[:half], factors[:half]).solution
    left = (factors - inputs @ probe)[half:].square().sum()
    return 1 - float(left / factors[half:].square().sum())


def test_s016_views_meet_in_the_shared_latent_and_not_in_their_own() -> None:
    """Each view alone finds its partner among 500; chance is 1 in 500."""
    torch.manual_seed(0)
    model, objective = SharedAndPrivate(), ELBO()
    train, _ = two_views(2000)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
    kinds = torch.tensor([[True, True], [True, False], [False, True]])
    for _ in range(1000):
        rows, kind = torch.randint(2000, (128,)), torch.randint(3, (128,))
        optimizer.zero_grad(set_to_none=True)
        objective(model.evidence((train[:, rows], kinds[kind]))).loss.backward()
        optimizer.step()
        decay.step()
    views, shared = two_views(500)
    with torch.no_grad():
        alone = [
            model.shared_posterior(views, kinds[1 + index].expand(500, 2)).mean
            for index in range(2)
        ]
        own = [model.private[index](views[index]).mean for index in range(2)]
    assert retrieval(*alone) >= 0.95
    assert retrieval(*own) <= 5 / 500
    assert min(explained(code, shared) for code in alone) >= 0.95
    assert max(explained(code, shared) for code in own) <= 0.03


def test_a_missing_view_leaves_the_evidence_of_the_other_alone() -> None:
    model = SharedAndPrivate()
    views, _ = two_views(4)
    present = torch.tensor([[True, False]]).expand(4, 2)
    found = []
    for garbage in (0.0, 9.0):
        torch.manual_seed(0)
        model.zero_grad()
        evidence = model.evidence((torch.stack([views[0], views[1] + garbage]), present), 3)
        ELBO(3)(evidence).loss.backward()
        assert not evidence.latents[2].kl().any()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert {name for name, each in gradients.items() if each.any()} == {
            name for name, _ in model.named_parameters() if ".0." in name
        }
        found.append([evidence.log_joint_ratio().detach(), *gradients.values()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
