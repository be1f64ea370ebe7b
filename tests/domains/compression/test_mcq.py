"""McQuic: codes against brute force, lengths against counts, files against codes."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image
from torch import Tensor

from core.runtime.errors import UserError
from core.variational.objectives import ELBO
from domains.compression.config import MCQ, Rates
from domains.compression.data.records import Images
from domains.compression.model import construct
from domains.compression.model.cascade import (
    BANDS,
    SEEN,
    SMOOTHING,
    Cascade,
    Codebook,
    band_of,
    contexts_of,
)
from domains.compression.model.errors import CorruptBitstream
from domains.compression.model.frozen import Halo
from domains.compression.model.mcq import FrozenMcQuic, McQuic
from domains.compression.model.rates import noise_scale

OPTIONS = MCQ(
    channels=24,
    coarse=8,
    groups=(20, 3, 2),
    codes=(32, 16, 8),
    dimensions=4,
    width=8,
    filter=4,
)
STRIDE = 64


def photograph(name: str = "china.jpg") -> Tensor:
    """A photograph that comes with scikit-learn, of sides that are multiples of the stride."""
    return torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[:, :384, :640]


def windows(side: int = 128, name: str = "china.jpg") -> Tensor:
    """The photograph in squares."""
    parts = photograph(name).unfold(1, side, side).unfold(2, side, side)
    return parts.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def images(count: int = 4, side: int = 128) -> Images:
    """Windows at rates all over the scale."""
    return Images(windows(side)[:count], torch.linspace(0, 252, count).round().long())


@cache
def started() -> McQuic:
    torch.manual_seed(0)
    model = construct(OPTIONS, Rates())
    assert isinstance(model, McQuic)
    model.start(images(15))
    return model.eval()


@cache
def frozen() -> FrozenMcQuic:
    made = started().freeze(images())
    assert isinstance(made, FrozenMcQuic)
    return made


def filled(cascade: Cascade, seed: int = 0) -> Cascade:
    """With random codebooks and counts."""
    generator = torch.Generator().manual_seed(seed)
    for group in range(len(cascade.books)):
        book = cascade.book(group)
        book.codebook.copy_(torch.randn(book.codebook.shape, generator=generator))
        book.counts.copy_(torch.rand(book.counts.shape, generator=generator) + 0.01)
    cascade.activity.copy_(torch.rand(cascade.activity.shape, generator=generator) * 9 + 0.5)
    return cascade


def psnr_db(pixels: Tensor, other: Tensor) -> float:
    error = (pixels.double() - other.double()).square().mean()
    return float(10 * torch.log10(255**2 / error))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 6), st.integers(0, 1000), st.floats(0.01, 100))
def test_the_cheapest_code_is_that_of_a_search_in_double_precision(
    codes: int, size: int, seed: int, weight: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    book = Codebook(codes, size)
    book.codebook.copy_(torch.randn(codes, size, generator=generator))
    book.counts.copy_(torch.rand(codes, generator=generator) + 0.01)
    vectors = torch.randn(30, size, generator=generator)
    found, saved = book.cheapest(vectors, torch.full((30,), weight))
    counts = book.counts.double() + SMOOTHING
    lengths = -(counts / counts.sum()).log()
    squares = (vectors.double()[:, None] - book.codebook.double()).square().sum(-1)
    costs = weight * squares + lengths
    nothing = weight * vectors.double().square().sum(-1)
    taken = costs.gather(1, found[:, None])[:, 0]
    slack = 1e-5 * (1 + nothing)
    assert (taken <= costs.amin(1) + slack).all()
    assert ((saved - (taken - nothing)).abs() <= slack).all()


def test_where_bits_are_cheap_the_nearest_code_is_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    book = Codebook(40, 3)
    book.codebook.copy_(torch.randn(40, 3, generator=generator))
    vectors = torch.randn(200, 3, generator=generator)
    found, _ = book.cheapest(vectors, torch.full((200,), 1e7))
    assert torch.equal(found, torch.cdist(vectors, book.codebook).argmin(1))


def test_a_code_costs_minus_the_logarithm_of_its_counted_frequency() -> None:
    cascade = filled(Cascade(3, 5, 2, 6))
    codes = torch.randint(0, 6, (2, 3, 4, 5), generator=torch.Generator().manual_seed(1))
    before = torch.randint(0, 2, (2, SEEN, 4, 5), generator=torch.Generator().manual_seed(2))
    band = torch.tensor([1, 6])
    nats = cascade.nats(codes, band, before)
    for b, g, i, j in np.ndindex(2, 3, 4, 5):
        seen = [*before[b], *(codes[b] > 0).long()][g : g + SEEN]
        around = sum(
            int(seen[-1][y, x])
            for y in range(max(i - 1, 0), min(i + 2, 4))
            for x in range(max(j - 1, 0), min(j + 2, 5))
        ) - int(seen[-1][i, j])
        bucket = (around > 0) + (around > 2) + (around > 5)
        counts = cascade.activity[g, band[b], sum(int(s[i, j]) for s in seen) * 4 + bucket]
        code = int(codes[b, g, i, j])
        expected = -math.log(float(counts[int(code > 0)] / counts.sum()))
        if code:
            book = cascade.book(g).counts
            expected -= math.log(float(book[code - 1] / book.sum()))
        assert float(nats[b, g, i, j]) == pytest.approx(expected, abs=1e-3)


def test_masses_of_a_level_sum_to_one() -> None:
    cascade = filled(Cascade(2, 2, 2, 4))
    every = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 2, 1, 2)
    band, before = torch.full((len(every),), 3), torch.ones(len(every), SEEN, 1, 2).long()
    masses = (-cascade.nats(every, band, before).flatten(1).sum(1)).exp()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-5)


def test_chosen_codes_stand_for_the_value_and_cost_less_than_none() -> None:
    cascade = filled(Cascade(4, 8, 3, 12)).eval()
    residual = torch.randn(2, 12, 3, 5, generator=torch.Generator().manual_seed(3))
    weight, band = torch.tensor([0.5, 20.0]), torch.tensor([0, 7])
    before = torch.zeros(2, SEEN, 3, 5).long()
    chosen = cascade(residual, weight, band, before)
    assert torch.allclose(chosen.value, cascade.decode(chosen.codes), atol=1e-5)

    def cost(codes: Tensor) -> Tensor:
        error = (residual - cascade.decode(codes)).square().flatten(1).sum(1)
        return weight * error + cascade.nats(codes, band, before).flatten(1).sum(1)

    assert (cost(chosen.codes) < cost(torch.zeros_like(chosen.codes))).all()


def test_reconsidering_codes_costs_less() -> None:
    model, batch = started(), images()
    x = batch.pixels.float() / 255

    def cost(passes: int) -> float:
        coded = model.code(x, batch.rate, passes=passes)
        weight = 0.5 / noise_scale(batch.rate, model.rates).square()
        picture = model.synthesise(coded.value, batch.rate)
        distortion = weight * (picture - x).square().flatten(1).sum(1)
        nats = [
            model.cascade(2 - place).nats(level.codes, band_of(batch.rate), level.before)
            for place, level in enumerate(coded.levels)
        ]
        return float(distortion.sum() + sum(each.sum() for each in nats))

    assert cost(2) < cost(0)


def test_groups_that_are_not_sent_have_no_codes_and_are_not_counted() -> None:
    cascade = filled(Cascade(4, 8, 3, 12)).train()
    was = cascade.activity.clone()
    residual = 3 * torch.randn(1, 12, 6, 6, generator=torch.Generator().manual_seed(3))
    before = torch.zeros(1, SEEN, 6, 6).long()
    chosen = cascade(
        residual, torch.tensor([9.0]), torch.tensor([2]), before, sent=torch.tensor([2])
    )
    assert (chosen.codes[:, :2] > 0).any()
    assert not chosen.codes[:, 2:].any()
    assert torch.equal(cascade.activity[2:], was[2:])
    assert not torch.equal(cascade.activity[:2, 2], was[:2, 2])


def test_training_counts_approach_the_frequencies_of_what_is_coded() -> None:
    cascade = Cascade(1, 4, 2, 2).train()
    cascade.directions.copy_(torch.eye(2)[None])
    cascade.book(0).codebook.copy_(torch.tensor([[9.0, 0], [0, 9.0], [-9.0, 0], [0, -9.0]]))
    cascade.book(0).sums.copy_(cascade.book(0).codebook)
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.5, 0.2, 0.2, 0.05, 0.05])
    points = torch.cat([torch.zeros(1, 2), cascade.book(0).codebook])
    for _ in range(400):
        drawn = torch.multinomial(shares, 400, replacement=True, generator=generator)
        residual = points[drawn].T.reshape(1, 2, 20, 20)
        before = torch.zeros(1, SEEN, 20, 20).long()
        cascade(residual, torch.tensor([5.0]), torch.tensor([0]), before)
    found = (-cascade.book(0).nats).exp()
    assert torch.allclose(found, shares[1:] / 0.5, atol=0.02)
    assert float((-cascade.activity_nats[0, 0, 0]).exp()[1]) == pytest.approx(0.5, abs=0.02)


def test_no_context_looks_at_a_group_that_is_not_decoded_yet() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2, (1, 5, 4, 4), generator=generator)
    before = torch.randint(0, 2, (1, SEEN, 4, 4), generator=generator)
    context = contexts_of(codes, before)
    for group in range(5):
        other = codes.clone()
        other[:, group:] = 1 - other[:, group:]
        assert torch.equal(contexts_of(other, before)[:, : group + 1], context[:, : group + 1])


def test_the_gradient_reaches_every_parameter() -> None:
    model = construct(OPTIONS, Rates())
    model.start(images(15))
    ELBO()(model.train().evidence(images()), 0.5).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_evidence_is_the_likelihood_of_the_decoded_picture_and_the_length_of_its_codes() -> None:
    model, batch = started(), images()
    evidence = model.evidence(batch, 2)
    codes = {latent.name: latent.value[0] for latent in evidence.latents}
    likelihood = model.likelihood(model.decode(codes, batch.rate), batch.rate)
    expected = likelihood.log_prob(batch.pixels.float() / 255)
    assert torch.allclose(evidence.log_likelihood["pixels"], expected.expand(2, -1), rtol=1e-4)
    before = torch.zeros(4, SEEN, 2, 2).long()
    coarsest = model.cascade(2).nats(codes["level3"], band_of(batch.rate), before)
    lengths = coarsest.flatten(1).sum(1)
    assert torch.allclose(evidence.latents[0].kl(), lengths.expand(2, -1), rtol=1e-5)
    assert evidence.bounds


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 252), st.integers(1, 2), st.integers(1, 3), st.integers(0, 2))
def test_a_stream_decodes_to_the_codes_that_were_chosen(
    rate: int, rows: int, columns: int, effort: int
) -> None:
    height, width = rows * STRIDE, columns * STRIDE
    coded = frozen().encode(photograph()[:, :height, :width], rate, effort)
    decoded = frozen().decode(coded.payload, height, width, rate)
    assert decoded.keys() == coded.latents.keys()
    assert all(torch.equal(decoded[name], coded.latents[name]) for name in decoded)


@pytest.mark.parametrize("rate", [0, 130, 252])
def test_a_file_is_as_long_as_its_tables_and_the_model_say(rate: int) -> None:
    pixels = photograph()
    coded = frozen().encode(pixels, rate)
    bits = sum(coded.bits.values())
    # Zero bytes at the end are not written: by luck a file is a byte below its tables.
    assert -8 < len(coded.payload) * 8 - bits < 40
    evidence = started().evidence(Images(pixels[None], torch.tensor([rate])))
    estimate = sum(float(latent.kl()) for latent in evidence.latents) / math.log(2)
    assert bits == pytest.approx(estimate, rel=0.005)
    assert coded.rate_map is not None
    assert coded.rate_map.shape == (48, 80)
    assert float(coded.rate_map.sum()) == pytest.approx(bits, rel=1e-4)


def test_what_is_drawn_is_the_picture_of_the_evidence() -> None:
    pixels = photograph()[:, :128, :192]
    coded = frozen().encode(pixels, 200)
    model = started()
    batch = Images(pixels[None], torch.tensor([200]))
    codes = {latent.name: latent.value[0] for latent in model.evidence(batch).latents}
    expected = (model.decode(codes, batch.rate)[0] * 255).round().clamp(0, 255)
    assert torch.equal(frozen().render(coded.latents, 200), expected.byte())


def test_the_error_falls_with_every_level_that_is_read() -> None:
    pixels = photograph()
    coded = frozen().encode(pixels, 252)
    read = [frozen().decode(coded.payload, 384, 640, 252, level) for level in range(4)]
    for level, latents in enumerate(read):
        for place, name in enumerate(frozen().levels):
            expected = coded.latents[name] if place < level else torch.zeros_like(latents[name])
            assert torch.equal(latents[name], expected)
    errors = [psnr_db(pixels, frozen().render(each, 252)) for each in read]
    assert all(worse < better for worse, better in pairwise(errors))


def test_a_higher_rate_takes_more_bits_and_errs_less() -> None:
    pixels, rates = photograph("flower.jpg"), (0, 80, 252)
    coded = [frozen().encode(pixels, rate) for rate in rates]
    drawn = [
        psnr_db(pixels, frozen().render(each.latents, rate))
        for each, rate in zip(coded, rates, strict=True)
    ]
    assert all(len(a.payload) < len(b.payload) for a, b in pairwise(coded))
    assert all(a < b for a, b in pairwise(drawn))


def test_only_what_is_inside_the_halo_is_coded() -> None:
    halo = Halo(top=64, left=128)
    pixels = photograph()[:, :192, :320]
    coded = frozen().encode(pixels, 150, halo=halo)
    decoded = frozen().decode(coded.payload, 128, 192, 150)
    assert all(torch.equal(decoded[name], coded.latents[name]) for name in decoded)
    assert decoded["level1"].shape == (20, 8, 12)


def test_features_and_expectations_look_no_further_than_the_halo() -> None:
    model, reach = started().double(), frozen().halo
    try:
        x = photograph()[None, :, :384, :384].double() / 255
        changed = x.clone()
        changed[..., : 384 - reach - STRIDE] = 0.5
        rate = torch.tensor([100])
        for a, b in zip(model.analyse(x, rate), model.analyse(changed, rate), strict=True):
            columns = a.shape[-1] * STRIDE // 384
            assert torch.equal(a[..., -columns:], b[..., -columns:])
    finally:
        model.float()


def test_state_and_restore_give_the_same_model() -> None:
    tensors, header = frozen().state()
    other = FrozenMcQuic.restore(tensors, header)
    assert other.identity == frozen().identity
    coded = frozen().encode(photograph(), 77)
    again = other.encode(photograph(), 77)
    assert again.payload == coded.payload
    drawn = other.render(again.latents, 77)
    assert torch.equal(drawn, frozen().render(coded.latents, 77))


def test_the_identity_is_of_what_decoding_depends_on() -> None:
    tensors, header = frozen().state()

    def changed(name: str) -> bytes:
        other = {key: each.clone() for key, each in tensors.items()}
        other[name].view(-1)[0] += 1
        return FrozenMcQuic.restore(other, header).identity

    assert changed("model.cascades.0.books.1.codebook") != frozen().identity
    assert changed("model.synthesis.own_weight") != frozen().identity
    assert changed("model.analysis.own_weight") == frozen().identity
    assert len(frozen().identity) == 8


def test_a_damaged_model_is_one_clear_error() -> None:
    tensors, header = frozen().state()
    shorter = {**tensors, "tables.sizes": tensors["tables.sizes"][:-1]}
    missing = {name: each for name, each in tensors.items() if name != "model.mean"}
    other = {**header, "options": {**header["options"], "groups": [19, 3, 2]}}
    for damaged in ((shorter, header), (missing, header), (tensors, other), (tensors, {})):
        with pytest.raises(UserError, match="damaged model, freeze it again"):
            FrozenMcQuic.restore(*damaged)


def test_a_stream_that_ends_early_is_corrupt() -> None:
    coded = frozen().encode(photograph(), 200)
    with pytest.raises(CorruptBitstream):
        frozen().decode(coded.payload[: len(coded.payload) // 2], 384, 640, 200)
    with pytest.raises(CorruptBitstream):
        frozen().decode(coded.payload + bytes(100), 384, 640, 200)


def test_bands_cover_all_rates() -> None:
    bands = band_of(torch.arange(253))
    assert bands.unique().tolist() == list(range(BANDS))
    assert (bands.diff() >= 0).all()


@pytest.mark.slow
def test_after_training_levels_and_rates_draw_ever_better_pictures() -> None:
    torch.manual_seed(0)
    model = construct(OPTIONS, Rates(emphasis=0))
    batch = images(15)
    others = Images(windows(name="flower.jpg"), batch.rate)
    model.start(batch)
    before = model.eval().evidence(others)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for step in range(120):
        chosen = torch.arange(4) * 3 + step % 4
        rate = torch.randint(253, (4,))
        loss = ELBO()(model.evidence(Images(batch.pixels[chosen % 15], rate)), 0.5).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    after = model.eval().evidence(others)
    assert float(ELBO()(after).value) > float(ELBO()(before).value)
    pixels, made = photograph(), model.freeze(batch)
    for rate in (40, 150, 250):
        coded = made.encode(pixels, rate)
        errors = [
            psnr_db(pixels, made.render(made.decode(coded.payload, 384, 640, rate, level), rate))
            for level in range(4)
        ]
        assert all(worse < better for worse, better in pairwise(errors))
