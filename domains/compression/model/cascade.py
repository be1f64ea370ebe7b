r"""Codebooks in a row: each codes what those before leave over, where that is worth its bits.

A position of a level has one code of each group. Code 0 says nothing, code k adds the k-th vector
of the group's codebook. Both parts of a code have a probability that needs no network to know:

.. math:: p(k) = \begin{cases} 1 - a & k = 0 \\ a\, f_k & k > 0 \end{cases}

with the frequency f of the codes in the group and the probability a that there is one, counted by
band of rates and by how many of the codes decoded before, here and next to it, are 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from core.variational.quantization import VectorQuantizer
from domains.compression.model.rates import INDICES

BANDS = 8
"""Bands of rate indexes that probabilities are counted for."""
SEEN = 2
"""Groups decoded before that a context looks at."""
NEIGHBOURS = (0, 2, 5)
"""Most active neighbours of each bucket but the last."""
CONTEXTS = (SEEN + 1) * (len(NEIGHBOURS) + 1)
DECAY, SMOOTHING = 0.99, 1e-5
FORGETTING = 0.99  # of the counts behind the probabilities of activity, for each step
UNSEEN = 0.5  # pseudo-counts of both outcomes
ITERATIONS = 6  # of the clustering that a codebook starts from
FLAG_NATS = 1.0  # what activity is taken to cost more than none, before it is counted


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a cascade makes of a residual.

    Args:
        codes: 0 for nothing, else one more than the index in the codebook.
        value: What the codes stand for.
    """

    codes: Int64[Tensor, "batch group height width"]
    value: Float[Tensor, "batch channel height width"]


class Codebook(VectorQuantizer):
    r"""A codebook of which the cheapest code is taken, and not the nearest.

    .. math:: k = \arg\min_j w \|t - e_j\|^2 - \ln f_j, \quad
        f_j = \frac{N_j + \epsilon}{\sum_l N_l + K \epsilon}

    with the running counts N of the running k-means.

    References:
        Chou, Lookabaugh and Gray, "Entropy-Constrained Vector Quantization", IEEE Transactions on
        Acoustics, Speech, and Signal Processing 37, 1989.

    Args:
        codes: How many codes there are.
        dimensions: Of a vector.
    """

    def __init__(self, codes: int, dimensions: int) -> None:
        super().__init__(codes, dimensions, 0.0, "ema", DECAY, SMOOTHING, 0.0)

    @property
    def nats(self) -> Float[Tensor, " code"]:
        """What each code costs, given that there is one."""
        counts = self.counts + SMOOTHING
        return counts.sum().log() - counts.log()

    def cheapest(
        self, vectors: Float[Tensor, "vector dimension"], weight: Float[Tensor, " vector"]
    ) -> tuple[Int64[Tensor, " vector"], Float[Tensor, " vector"]]:
        """Return the index of each vector's cheapest code, and what it saves over none.

        Args:
            vectors: What is coded.
            weight: Nats of a squared error of one, for each.

        Returns:
            The indexes, and the cost in nats of the code less that of leaving the vector, of which
            the activity is not a part.
        """
        ones = weight.unsqueeze(-1)
        book = self.codebook
        costs = (
            torch.cat([-2 * ones * vectors, ones, torch.ones_like(ones)], 1)
            @ torch.cat([book, book.square().sum(1, keepdim=True), self.nats.unsqueeze(-1)], 1).T
        )
        saved, codes = costs.min(1)
        return codes, saved

    def learn(
        self, vectors: Float[Tensor, "vector dimension"], codes: Int64[Tensor, " vector"]
    ) -> None:
        """Move the codebook with vectors that chose these codes."""
        if len(codes):
            self._move(vectors, codes)


class Cascade(nn.Module):
    """The codebooks of a level, each for a few directions of what those before it leave over.

    Args:
        groups: How many codebooks.
        codes: Vectors of each.
        dimensions: Directions of each.
        channels: Of the level's features.
    """

    directions: Tensor
    activity: Tensor

    def __init__(self, groups: int, codes: int, dimensions: int, channels: int) -> None:
        super().__init__()
        self.books = nn.ModuleList(Codebook(codes, dimensions) for _ in range(groups))
        made = [torch.linalg.qr(torch.randn(channels, dimensions))[0].T for _ in range(groups)]
        self.register_buffer("directions", torch.stack(made))
        self.register_buffer("activity", torch.full((groups, BANDS, CONTEXTS, 2), UNSEEN))

    def book(self, group: int) -> Codebook:
        """The codebook of a group."""
        book = self.books[group]
        assert isinstance(book, Codebook)
        return book

    @property
    def activity_nats(self) -> Float[Tensor, "group band context 2"]:
        """What it costs to say that there is no code, and that there is one."""
        return self.activity.sum(-1, keepdim=True).log() - self.activity.log()

    @torch.no_grad()
    def forward(
        self,
        residual: Float[Tensor, "batch channel height width"],
        weight: Float[Tensor, " batch"],
        band: Int64[Tensor, " batch"],
        before: Int64[Tensor, "batch seen height width"],
        inside: Int64[Tensor, "height width"] | None = None,
        sent: Int64[Tensor, " batch"] | None = None,
        passes: int = 0,
    ) -> Chosen:
        """Choose the codes one group after the other; in training learn from them.

        Args:
            residual: What is to be coded.
            weight: Nats of a squared error of one.
            band: Of each picture's rate.
            before: Activity of the groups decoded before, see `history`.
            inside: 1 where a position is of the tile, 0 in the halo, which contexts do not see.
            sent: How many groups may have codes, of each picture; all if not given.
            passes: How often each code is reconsidered, given all others.
        """
        left = residual.permute(0, 2, 3, 1)
        sent = torch.full_like(band, len(self.books)) if sent is None else sent
        codes: list[Tensor] = []
        parts: list[Tensor] = []
        maps = list(before.unbind(1))
        prices = self.activity_nats
        for turn in range((passes + 1) * len(self.books)):
            group = turn % len(self.books)
            if turn >= len(self.books):
                left = left + parts[group] @ self.directions[group]
            context = contexts(torch.stack(maps[group : group + SEEN], 1))
            nothing, something = prices[group][band.view(-1, 1, 1), context].unbind(-1)
            barred = torch.where(group < sent, 0.0, torch.inf).view(-1, 1, 1)
            code, part = self._choose(group, left, weight, something - nothing + barred)
            left = left - part @ self.directions[group]
            active = (code > 0).long()
            _put(codes, group, code)
            _put(parts, group, part)
            _put(maps, SEEN + group, active if inside is None else active * inside)
            if self.training:
                self._count(group, band[group < sent], context[group < sent], active[group < sent])
        return Chosen(torch.stack(codes, 1), residual - left.permute(0, 3, 1, 2))

    def _choose(
        self, group: int, left: Tensor, weight: Tensor, surcharge: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the codes of a group and what they stand for, along its directions."""
        book = self.book(group)
        vectors = (left @ self.directions[group].T).flatten(0, 2)
        weights = weight.view(-1, 1, 1).expand(surcharge.shape).reshape(-1)
        codes, saved = book.cheapest(vectors, weights)
        active = saved + surcharge.reshape(-1) < 0
        part = book.codebook[codes] * active.unsqueeze(-1)
        if self.training:
            book.learn(vectors[active], codes[active])
        chosen = torch.where(active, codes + 1, 0).view(surcharge.shape)
        return chosen, part.view(*surcharge.shape, -1)

    def _count(self, group: int, band: Tensor, context: Tensor, active: Tensor) -> None:
        """Count anew with what was seen; what is older counts ever less."""
        place = (band.view(-1, 1, 1) * CONTEXTS + context) * 2 + active
        new = torch.bincount(place.flatten(), minlength=BANDS * CONTEXTS * 2)
        counts = self.activity[group]
        seen = torch.bincount(band, minlength=BANDS) > 0
        kept = torch.where(seen, FORGETTING, 1.0).view(-1, 1, 1)
        counts.copy_((counts - UNSEEN) * kept + UNSEEN + new.view_as(counts))

    def nats(
        self,
        codes: Int64[Tensor, "batch group height width"],
        band: Int64[Tensor, " batch"],
        before: Int64[Tensor, "batch seen height width"],
    ) -> Float[Tensor, "batch group height width"]:
        """Return what each code costs by the counted frequencies."""
        context = contexts_of(codes, before)
        group = torch.arange(len(self.books), device=codes.device).view(1, -1, 1, 1)
        flags = self.activity_nats[group, band.view(-1, 1, 1, 1), context, (codes > 0).long()]
        each = torch.stack([F.pad(self.book(g).nats, (1, 0)) for g in range(len(self.books))])
        return flags + each[group, codes]

    def decode(
        self, codes: Int64[Tensor, "batch group height width"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Return what codes stand for."""
        total = torch.zeros((), device=codes.device)
        for group in range(len(self.books)):
            book = F.pad(self.book(group).codebook, (0, 0, 1, 0))
            total = total + book[codes[:, group]] @ self.directions[group]
        return total.permute(0, 3, 1, 2)

    @torch.no_grad()
    def start(
        self,
        residual: Float[Tensor, "batch channel height width"],
        weight: Float[Tensor, " batch"],
        band: Int64[Tensor, " batch"],
        before: Int64[Tensor, "batch seen height width"],
    ) -> Chosen:
        """Put the codebooks where they are of most use to these residuals; return what is coded.

        Each group takes the directions in which what is left costs most, and the codebook that
        repeated assignment and averaging comes to.
        """
        left = residual.permute(0, 2, 3, 1)
        each = weight.view(-1, 1, 1).expand(left.shape[:-1])
        for group in range(len(self.books)):
            rows, weights = left.flatten(0, 2), each.reshape(-1)
            directions = principal(rows * weights.sqrt().unsqueeze(-1), self.directions.shape[1])
            self.directions[group].copy_(directions)
            cluster(self.book(group), rows @ directions.T, weights)
            _, part = self._choose(group, left, weight, torch.full_like(each, FLAG_NATS))
            left = left - part @ directions
        return self._counted(residual, weight, band, before)

    def _counted(self, residual: Tensor, weight: Tensor, band: Tensor, before: Tensor) -> Chosen:
        """Choose codes, and count the activity that they have."""
        training, self.training = self.training, False
        chosen = self(residual, weight, band, before)
        context = contexts_of(chosen.codes, before)
        for group in range(len(self.books)):
            self._count(group, band, context[:, group], (chosen.codes[:, group] > 0).long())
        self.training = training
        return chosen


class CodePrior(Distribution):
    """The prior of a level's codes: what was counted, given the activity of coarser levels.

    Args:
        cascade: The level's codebooks and counts.
        band: Of each picture's rate.
        before: Activity of the groups decoded before, see `history`.
    """

    def __init__(
        self,
        cascade: Cascade,
        band: Int64[Tensor, " batch"],
        before: Int64[Tensor, "batch seen height width"],
    ) -> None:
        self.cascade, self.band, self.before = cascade, band, before
        event = torch.Size((len(cascade.books), *before.shape[2:]))
        super().__init__(band.shape, event, validate_args=False)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """None."""
        return {}

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log mass of codes of shape ``(*sample, batch, group, height, width)``."""
        flat = value.flatten(0, -5) if value.dim() > 4 else value.unsqueeze(0)
        sums = [-self.cascade.nats(one, self.band, self.before).flatten(1).sum(1) for one in flat]
        return torch.stack(sums).view(value.shape[:-3])


def band_of(rate: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """Return the band of rate indexes, whose counts a picture is coded by."""
    return rate * BANDS // INDICES


def history(
    codes: Int64[Tensor, "batch group height width"] | None,
    like: Shaped[Tensor, "batch channel fine_height fine_width"],
    inside: Int64[Tensor, "height width"] | None = None,
) -> Int64[Tensor, "batch seen fine_height fine_width"]:
    """Return the activity of the last groups of the next coarser level, at a level's grid.

    Args:
        codes: Of the coarser level; None if there is none.
        like: Features or codes of the level.
        inside: 1 where a position of the coarser level is of the tile.
    """
    size = (like.shape[0], SEEN, *like.shape[2:])
    if codes is None:
        return torch.zeros(size, dtype=torch.long, device=like.device)
    active = (codes[:, -SEEN:] > 0).long()
    active = active if inside is None else active * inside
    active = F.pad(active, (0, 0, 0, 0, SEEN - active.shape[1], 0))
    return active.repeat_interleave(2, 2).repeat_interleave(2, 3)


def contexts_of(
    codes: Int64[Tensor, "batch group height width"],
    before: Int64[Tensor, "batch seen height width"],
) -> Int64[Tensor, "batch group height width"]:
    """Return the context of every code of a level."""
    maps = torch.cat([before, (codes > 0).long()], 1)
    windows = [maps[:, group : group + SEEN] for group in range(codes.shape[1])]
    return contexts(torch.stack(windows, 1).flatten(0, 1)).view_as(codes)


def principal(rows: Float[Tensor, "row channel"], count: int) -> Float[Tensor, "count channel"]:
    """Return the directions of the largest second moment, the largest first."""
    moment = rows.double().T @ rows.double()
    return torch.linalg.eigh(moment).eigenvectors[:, -count:].flip(1).T.to(rows)


def cluster(book: Codebook, vectors: Tensor, weights: Tensor) -> None:
    """Fit a codebook to vectors by entropy-constrained k-means, from some of the vectors on."""
    strength = weights * vectors.square().sum(1)
    worth = vectors[strength > 2.0]
    worth = vectors if len(worth) < len(book.codebook) else worth
    spread = torch.linspace(0, len(worth) - 1, len(book.codebook)).long()
    order = worth.square().sum(1).argsort()
    book.codebook.copy_(worth[order][spread])
    book.counts.fill_(1.0)
    for _ in range(ITERATIONS):
        codes, saved = book.cheapest(vectors, weights)
        kept = saved < 0
        counts = torch.bincount(codes[kept], minlength=len(book.codebook)).to(vectors)
        sums = torch.zeros_like(book.codebook).index_add_(0, codes[kept], vectors[kept])
        means = sums / counts.clamp(min=1).unsqueeze(-1)
        book.codebook.copy_(torch.where(counts.unsqueeze(-1) > 0, means, book.codebook))
        book.counts.copy_(counts + 0.5)
    book.counts.mul_(len(book.counts) / book.counts.sum())
    book.sums.copy_(book.codebook * book.counts.unsqueeze(-1))


def contexts(
    seen: Int64[Tensor, "batch seen height width"],
) -> Int64[Tensor, "batch height width"]:
    """Return the context of each code of a group from the activity of the groups before it.

    Args:
        seen: 1 where a group has a code, the latest group last.
    """
    latest = seen[:, -1]
    padded = F.pad(latest, (1, 1, 1, 1))
    rows = padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]
    around = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] - latest
    bucket = torch.bucketize(around, torch.tensor(NEIGHBOURS, device=seen.device))
    return seen.sum(1) * (len(NEIGHBOURS) + 1) + bucket


def _put(items: list[Tensor], place: int, item: Tensor) -> None:
    """Set an item of a list, or the one after its last."""
    items[place : place + 1] = [item]
