"""The latents of a batch as rows: one posterior, one prior and one draw of each for every datum.

A datum is what has a latent of its own: an example, or, where an example holds many (the nodes of
a graph, the frames of an utterance), each of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from core.contract import Model
from core.variational.diagnostics.estimate import Unavailable
from core.variational.diagnostics.looking import looking_at
from core.variational.distributions import DiagonalNormal, as_diagonal_normal
from core.variational.evidence import Evidence, Latent

CELLS = 2**22


@dataclass(frozen=True, eq=False)
class LatentRows:
    """A latent group with one row for every datum.

    Args:
        value: A draw from the posterior of each row.
        posterior: Distributions whose batch shapes, one after the other, are the rows.
        prior: The same of the prior; or why there is none for a row alone.
        prior_value: A draw from the prior of each row, or why there is none.
    """

    value: Shaped[Tensor, "row latent"]
    posterior: tuple[Distribution, ...]
    prior: tuple[Distribution, ...] | Unavailable
    prior_value: Shaped[Tensor, "row latent"] | Unavailable


def latent_rows(
    model: Model, batches: Iterable[Any], most: int = 500, seed: int = 0
) -> dict[str, LatentRows | Unavailable]:
    """Return the rows of every latent group, at most so many, drawn at random.

    Diagonal normals are drawn row by row. Other distributions cannot be taken apart: of these
    whole batches are taken until there are enough.

    Args:
        model: Any model.
        batches: What its ``evidence`` takes, on its device.
        most: Rows to keep.
        seed: Seed of the draws and of the choice.
    """
    groups: dict[str, list[LatentRows | Unavailable]] = {}
    with looking_at(model, seed):
        for batch in batches:
            evidence = model.evidence(batch)
            for latent in evidence.latents:
                rows = _rows_of(latent, evidence.observed)
                groups.setdefault(latent.name, []).append(rows)
        return {name: _joined(parts, most) for name, parts in groups.items()}


def log_densities(
    distributions: Iterable[Distribution], value: Shaped[Tensor, "draw latent"]
) -> Float[Tensor, "draw row"]:
    """Return the log-density of every value under every row, in nats and float64.

    Args:
        distributions: Of `LatentRows`.
        value: Draws.
    """
    columns = [_log_densities(distribution, value) for distribution in distributions]
    return torch.cat(columns, 1)


def by_row(distribution: Distribution) -> Distribution:
    """Return the distribution whose event is the last dimension only; the rest becomes rows.

    Raises:
        NotImplementedError: If what an example holds is not independent in it.

    Example:
        >>> nodes = DiagonalNormal(torch.zeros(1, 5, 2), torch.ones(()), event_dims=2)
        >>> by_row(nodes).batch_shape
        torch.Size([1, 5])
    """
    if len(distribution.event_shape) <= 1:
        return distribution
    if isinstance(distribution, DiagonalNormal):
        return DiagonalNormal(distribution.loc, distribution.scale, 1)
    if isinstance(distribution, Independent):
        base = distribution.base_dist
        dims = max(0, 1 - len(base.event_shape))
        return by_row(Independent(base, dims, validate_args=False) if dims else base)
    raise NotImplementedError(
        f"{type(distribution).__name__} with an event of shape {tuple(distribution.event_shape)} "
        "does not factorise into rows"
    )


def first_batches(batches: Iterable[Any], model: Model, examples: int, seed: int) -> list[Any]:
    """Return batches in a random order until there are so many examples.

    Args:
        batches: All there are.
        model: Tells how many examples a batch holds.
        examples: Enough; whole batches are taken, and at least one.
        seed: Of the order.
    """
    everything = list(batches)
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))
    chosen, count = [], 0
    with looking_at(model, seed):
        for index in order.tolist():
            if count >= examples:
                break
            chosen.append(everything[index])
            count += examples_in(model.evidence(everything[index]))
    return chosen


def examples_in(evidence: Evidence) -> int:
    """Return how many examples a batch held."""
    return next(iter(evidence.log_likelihood.values())).shape[1]


def mean_over_samples(evidence: Evidence, term: Tensor) -> Float[Tensor, " batch"]:
    """Return the mean over the draws, which need not weigh the same."""
    weights = evidence.sample_weights
    return term.mean(0) if weights is None else (weights * term).sum(0)


def seen(evidence: Evidence, per_example: Tensor) -> Tensor:
    """Return the values of the examples in which anything is observed."""
    return per_example if evidence.observed is None else per_example[evidence.observed]


@contextlib.contextmanager
def watching_likelihoods(model: nn.Module) -> Iterator[list[Distribution]]:
    """Collect the distributions that the modules of a model return while it is asked."""
    found: list[Distribution] = []

    def note(module: nn.Module, given: Any, returned: Any) -> None:
        if isinstance(returned, Distribution):
            found.append(returned)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def normal_likelihood(
    model: Model, batch: Any, observed: Callable[[Any], Tensor] | None = None
) -> tuple[Evidence, DiagonalNormal, Tensor] | Unavailable:
    """Return what the model says of a batch, its Normal likelihood, and the data it is of.

    A likelihood is a module that returns a distribution; the one is taken that is a diagonal
    Normal and neither the posterior nor the prior of a latent. The data are the one tensor in the
    batch of its shape, unless ``observed`` says how to get them. Call it within `looking_at`.

    Args:
        model: Any model.
        batch: What its ``evidence`` takes.
        observed: The data of a batch, of shape ``(batch, *feature)``.
    """
    if not isinstance(model, nn.Module):
        return Unavailable("the model is no torch module, so that its likelihood is not seen")
    with watching_likelihoods(model) as found:
        evidence = model.evidence(batch)
    known = [id(each) for latent in evidence.latents for each in (latent.posterior, latent.prior)]
    others = {id(each): each for each in found if id(each) not in known}
    normals = [_normal_or_none(each) for each in others.values()]
    rest = [normal for normal in normals if normal is not None and normal.loc.dim() > 2]
    if len(rest) != 1:
        return Unavailable(
            f"{len(rest)} Normal likelihoods in the model (modules that return a Normal of shape "
            "(samples, batch, feature)); the theory is for one"
        )
    shape = torch.Size([examples_in(evidence), *rest[0].loc.shape[2:]])
    if observed is not None:
        return evidence, rest[0], observed(batch)
    tensors = [tensor for tensor in _tensors(batch) if tensor.shape == shape]
    if len(tensors) != 1:
        return Unavailable(
            f"{len(tensors)} tensors of shape {tuple(shape)} in a batch, so that the data of the "
            "likelihood are not known"
        )
    return evidence, rest[0], tensors[0]


def _normal_or_none(distribution: Distribution) -> DiagonalNormal | None:
    try:
        return as_diagonal_normal(distribution)
    except NotImplementedError:
        return None


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        return [each for each in batch.values() if isinstance(each, Tensor)]
    if isinstance(batch, tuple | list):
        return [each for each in batch if isinstance(each, Tensor)]
    if dataclasses.is_dataclass(batch):
        fields = [getattr(batch, field.name) for field in dataclasses.fields(batch)]
        return [each for each in fields if isinstance(each, Tensor)]
    return []


def _rows_of(latent: Latent, observed: Tensor | None) -> LatentRows | Unavailable:
    if len(latent.posterior.batch_shape) != 1:
        return Unavailable(
            f"the posterior of {latent.name!r} depends on sampled parents, and its marginal has "
            "no density"
        )
    try:
        posterior = _examples(by_row(latent.posterior), observed)
        value = _as_rows(posterior.sample(), posterior)
    except NotImplementedError as missing:
        return Unavailable(f"the posterior of {latent.name!r}: {_reason(missing)}")
    prior = _prior_of(latent, observed, posterior)
    if isinstance(prior, Unavailable):
        return LatentRows(value, (posterior,), prior, prior)
    return LatentRows(value, (posterior,), (prior,), _prior_draw(prior))


def _prior_of(
    latent: Latent, observed: Tensor | None, posterior: Distribution
) -> Distribution | Unavailable:
    try:
        prior = _examples(by_row(latent.prior), observed)
    except NotImplementedError as missing:
        return Unavailable(f"the prior of {latent.name!r}: {_reason(missing)}")
    if prior.batch_shape != posterior.batch_shape:
        return Unavailable(
            f"the prior of {latent.name!r} has batch shape {tuple(prior.batch_shape)}, its "
            f"posterior {tuple(posterior.batch_shape)}: it depends on sampled parents"
        )
    return prior


def _examples(distribution: Distribution, observed: Tensor | None) -> Distribution:
    """The distribution of those examples only in which anything is observed."""
    if observed is None or bool(observed.all()):
        return distribution
    normal = as_diagonal_normal(distribution)
    return DiagonalNormal(normal.loc[observed], normal.scale[observed], normal.event_dims)


def _prior_draw(prior: Distribution) -> Tensor | Unavailable:
    try:
        return _as_rows(prior.sample(), prior)
    except NotImplementedError:
        return Unavailable(f"the prior, a {type(prior).__name__}, cannot be sampled")


def _as_rows(value: Tensor, distribution: Distribution) -> Tensor:
    width = distribution.event_shape[0] if distribution.event_shape else 1
    return value.reshape(-1, width)


def _reason(missing: NotImplementedError) -> str:
    return str(missing) or "a method that is needed is not implemented"


def _joined(parts: list[LatentRows | Unavailable], most: int) -> LatentRows | Unavailable:
    missing = [part for part in parts if isinstance(part, Unavailable)]
    if missing:
        return missing[0]
    known = [part for part in parts if isinstance(part, LatentRows)]
    posterior = tuple(each for part in known for each in part.posterior)
    prior = _joined_priors(known)
    if _all_normal(posterior) and (isinstance(prior, Unavailable) or _all_normal(prior)):
        order = torch.randperm(sum(len(part.value) for part in known))[:most]
        return LatentRows(
            torch.cat([part.value for part in known])[order],
            (_chosen(posterior, order),),
            prior if isinstance(prior, Unavailable) else (_chosen(prior, order),),
            _joined_draws(known, order),
        )
    return _first(known, most)


def _first(known: list[LatentRows], most: int) -> LatentRows:
    kept: list[LatentRows] = []
    for part in known:
        if kept and sum(len(each.value) for each in kept) >= most:
            break
        kept.append(part)
    value = torch.cat([part.value for part in kept])
    posterior = tuple(each for part in kept for each in part.posterior)
    return LatentRows(value, posterior, _joined_priors(kept), _joined_draws(kept, slice(None)))


def _joined_priors(known: list[LatentRows]) -> tuple[Distribution, ...] | Unavailable:
    priors: list[Distribution] = []
    for part in known:
        if isinstance(part.prior, Unavailable):
            return part.prior
        priors.extend(part.prior)
    return tuple(priors)


def _joined_draws(known: list[LatentRows], chosen: Any) -> Tensor | Unavailable:
    draws: list[Tensor] = []
    for part in known:
        if isinstance(part.prior_value, Unavailable):
            return part.prior_value
        draws.append(part.prior_value)
    return torch.cat(draws)[chosen]


def _all_normal(distributions: Iterable[Distribution]) -> bool:
    return all(
        _normal_or_none(each) is not None and len(each.event_shape) == 1 for each in distributions
    )


def _chosen(distributions: Iterable[Distribution], order: Tensor) -> DiagonalNormal:
    normals = [as_diagonal_normal(each) for each in distributions]
    width = normals[0].loc.shape[-1]
    loc = torch.cat([normal.loc.reshape(-1, width) for normal in normals])[order]
    scale = torch.cat([normal.scale.reshape(-1, width) for normal in normals])[order]
    return DiagonalNormal(loc, scale)


def _log_densities(distribution: Distribution, value: Tensor) -> Tensor:
    """The matrix in blocks of values: an unblocked one holds values × rows × latents numbers."""
    batch = distribution.batch_shape
    block = max(1, CELLS // max(1, batch.numel() * value.shape[-1]))
    ones = [1] * len(batch)
    parts = []
    for part in value.split(block):
        shaped = part.reshape(-1, *ones, *distribution.event_shape)
        parts.append(distribution.log_prob(shaped).double().reshape(len(part), -1))
    return torch.cat(parts)
