"""Files of frozen models: read as they were written, or one line that says what is wrong."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from block_means import photograph
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from toy_codec import toy_codec, toy_images

from core.runtime.errors import UserError
from domains.compression.config import DCT, MCQ, Hyperprior, QRes, Rates
from domains.compression.data.records import Images
from domains.compression.model import construct, store
from domains.compression.model.freezing import freeze
from domains.compression.model.frozen import Frozen, Provenance
from domains.compression.model.rates import LAST

MODELS = {
    "dct": DCT(slices=(6, 18), width=8, blocks=1, hyper=4, features=8, context=12, filter=4),
    "hyperprior": Hyperprior(channels=8, latent=8),
    "qres": QRes(widths=(12, 8), latents=((9, 30), (12,)), blocks=1, known=8, context=12,
                 filter=4),
    "mcq": MCQ(channels=24, coarse=8, groups=(4, 2), codes=(16, 8), dimensions=4, width=8,
               filter=4),
}  # fmt: skip
PROVENANCE = Provenance(
    code="3d6c9cf", seed=7, settings="seed: 7\n", data={"source": "own", "facts": {"crops": 12}},
    photographs=[{"name": "Fluß.jpg", "licence": "CC0", "sha256": "ab"}],
    training={"steps": 3},
)  # fmt: skip
Content = dict[str, Any]
Change = Callable[[dict[str, Tensor], Content], object]

in_one_folder = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@cache
def frozen(kind: str = "dct") -> Frozen:
    torch.manual_seed(0)
    model = construct(MODELS[kind], Rates())
    pixels = torch.stack([photograph(128, 128, seed) for seed in range(4)])
    examples = Images(pixels, torch.linspace(0, LAST, 4).long())
    model.start(examples)
    made = model.eval().freeze(examples)
    made.provenance = PROVENANCE
    return made


@cache
def file_bytes(kind: str = "dct") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        store.save(frozen(kind), path)
        return path.read_bytes()


def placed(folder: Path, data: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    return path


def read_apart(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata."""
    length = int.from_bytes(data[:8], "little")
    return load_tensors(data), json.loads(data[8 : 8 + length])["__metadata__"]


def rewritten(change: Change, kind: str = "dct", sealed: bool = True) -> bytes:
    """The file with other content; sealed, so that its checksum is right."""
    tensors, metadata = read_apart(file_bytes(kind))
    content = json.loads(metadata[store.KEY])
    change(tensors, content)
    if sealed and "sha256" in content:
        content["sha256"] = store._digest(
            tensors, {name: each for name, each in content.items() if name != "sha256"}
        )
    return save_tensors(tensors, {store.KEY: json.dumps(content)})


def refused(folder: Path, data: bytes) -> str:
    """What is said of a file that is not read: one line that names it."""
    path = placed(folder, data)
    with pytest.raises(UserError) as caught:
        store.load(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    return told.removeprefix(f"{path}: ")


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    model, back = frozen(kind), store.load(placed(tmp_path, file_bytes(kind)))
    assert (back.kind, back.identity, back.levels) == (kind, model.identity, model.levels)
    assert (back.stride, back.halo, back.rates) == (model.stride, model.halo, model.rates)
    assert back.provenance == PROVENANCE
    pixels = photograph(128, 128)
    for rate in (20, 200):
        coded, again = model.encode(pixels, rate), back.encode(pixels, rate)
        assert again.payload == coded.payload
        latents = back.decode(coded.payload, 128, 128, rate)
        assert all(torch.equal(latents[name], each) for name, each in coded.latents.items())
        assert torch.equal(back.render(latents, rate), model.render(latents, rate))


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_was_read_is_written_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    back = store.load(placed(tmp_path, file_bytes(kind)))
    store.save(back, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file_bytes(kind)


def test_where_a_model_is_from_does_not_change_its_identity(tmp_path: Path) -> None:
    def elsewhere(tensors: dict[str, Tensor], content: Content) -> None:
        content["provenance"]["code"] = "another"

    back = store.load(placed(tmp_path, rewritten(elsewhere)))
    assert back.identity == frozen().identity
    assert back.provenance.code == "another"


def test_reading_leaves_the_random_stream_alone(tmp_path: Path) -> None:
    path = placed(tmp_path, file_bytes())
    torch.manual_seed(5)
    store.load(path)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def test_a_file_that_is_there_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = placed(tmp_path, b"old")
    with pytest.raises(UserError, match=r"model\.safetensors: exists already"):
        store.save(frozen(), path)
    assert path.read_bytes() == b"old"
    store.save(frozen(), path, force=True)
    assert path.read_bytes() == file_bytes()


def test_a_model_that_no_settings_make_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'ToyCodec'; known are dct, hyperprior, qres, mcq"):
        store.save(freeze(toy_codec(), toy_images(1)), tmp_path / "toy.safetensors")
    assert not list(tmp_path.iterdir())


@in_one_folder
@given(st.data())
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, data: st.DataObject) -> None:
    whole = file_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    last = data.draw(st.sampled_from([7, header - 1, len(whole) - 1]))
    place, bit = data.draw(st.integers(0, last)), data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[place] ^= 1 << bit
    refused(tmp_path, bytes(changed))


@settings(in_one_folder, max_examples=40)
@given(st.data())
def test_a_file_that_is_cut_off_or_has_more_behind_is_refused(
    tmp_path: Path, data: st.DataObject
) -> None:
    whole = file_bytes()
    last = data.draw(st.sampled_from([20, 2000, len(whole) - 1]))
    refused(tmp_path, whole[: data.draw(st.integers(0, last))])
    refused(tmp_path, whole + data.draw(st.binary(min_size=1, max_size=20)))


@settings(in_one_folder, max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data)


def test_a_tensor_that_was_changed_with_care_is_still_noticed(tmp_path: Path) -> None:
    def other(tensors: dict[str, Tensor], content: Content) -> None:
        tensors["prior.z.constant"][0] += 1

    assert "sha256: its content" in refused(tmp_path, rewritten(other, sealed=False))
    assert refused(tmp_path, rewritten(other)).startswith("identity: ")


@pytest.mark.parametrize("field", store.FIELDS)
def test_a_missing_field_or_one_of_another_type_is_named(field: str, tmp_path: Path) -> None:
    told = refused(tmp_path, rewritten(lambda _, content: content.pop(field), sealed=False))
    assert told.startswith(f"{field}: missing")
    told = refused(
        tmp_path, rewritten(lambda _, content: content.update({field: True}), sealed=False)
    )
    assert told.startswith(f"{field}: bool; expected")


@pytest.mark.parametrize("field", store.ORIGINS)
def test_so_is_one_of_the_provenance(field: str, tmp_path: Path) -> None:
    told = refused(tmp_path, rewritten(lambda _, content: content["provenance"].pop(field)))
    assert told.startswith(f"provenance.{field}: missing")
    told = refused(
        tmp_path, rewritten(lambda _, content: content["provenance"].update({field: None}))
    )
    assert told.startswith(f"provenance.{field}: NoneType; expected")


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    told = refused(tmp_path, rewritten(lambda _, content: content.update(colour="red")))
    assert told == "colour: unknown; update latentworks"
    told = refused(
        tmp_path, rewritten(lambda _, content: content["provenance"].update(colour="red"))
    )
    assert told == "provenance.colour: unknown; update latentworks"


@pytest.mark.parametrize(("field", "value"), [("version", 2), ("format", "frozen sound")])
def test_another_version_or_format_is_said(field: str, value: object, tmp_path: Path) -> None:
    told = refused(tmp_path, rewritten(lambda _, content: content.update({field: value})))
    assert str(value) in told
    assert "expected 'frozen image compression' of version 1" in told


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda _, content: content["model"].update(kind="dtc"), "model.kind: got 'dtc'"),
        (lambda _, content: content["model"].update(kind=["dct"]), "model.kind: got ['dct']"),
        (lambda _, content: content["model"].pop("kind"), "model.kind: got None"),
        (lambda _, content: content["model"].pop("options"), "options"),
        (lambda _, content: content["model"].pop("rates"), "rates"),
        (lambda _, content: content["model"].update(rates=3), "Rates"),
        (lambda _, content: content["model"]["rates"].update(lowest=-1), "lowest"),
        (lambda _, content: content["model"]["options"].update(width=-1), "width"),
        (lambda _, content: content["model"]["options"].update(width=9), "model."),
        (lambda _, content: content["model"]["options"].update(colour=9), "colour"),
        (lambda _, content: content["model"].update(kind="hyperprior"), "Hyperprior"),
    ],
)
def test_settings_that_make_no_such_model_are_named(
    change: Change, named: str, tmp_path: Path
) -> None:
    assert named in refused(tmp_path, rewritten(change))


def first(tensors: Mapping[str, Tensor], prefix: str) -> str:
    return next(
        name
        for name, each in sorted(tensors.items())
        if name.startswith(prefix) and each.numel() > 1
    )


def put(prefix: str, change: Callable[[Tensor], Tensor]) -> Change:
    def made(tensors: dict[str, Tensor], content: Content) -> None:
        name = first(tensors, prefix)
        tensors[name] = change(tensors[name].clone()).contiguous()

    return made


def without(prefix: str) -> Change:
    return lambda tensors, content: tensors.pop(first(tensors, prefix))


def filled(value: float) -> Callable[[Tensor], Tensor]:
    return lambda each: torch.full_like(each, value)


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize("kind", ["dct", "mcq"])
@pytest.mark.parametrize("prefix", ["model.", "tables."])
@pytest.mark.parametrize(
    "change",
    [
        lambda each: each[:-1],
        lambda each: each[None],
        lambda each: each.reshape(-1)[0],
        lambda each: each.to(torch.bfloat16),
        lambda each: each.bool(),
        lambda each: each.to(torch.complex64),
    ],
)
def test_a_tensor_of_another_shape_or_type_is_refused(
    kind: str, prefix: str, change: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    told = refused(tmp_path, rewritten(put(prefix, change), kind))
    assert told.startswith((f"{kind}: ", "tables", "coder", prefix))


@pytest.mark.parametrize("prefix", ["model.", "prior.", "tables."])
def test_a_missing_tensor_is_refused(prefix: str, tmp_path: Path) -> None:
    assert "damaged model, freeze it again" in refused(tmp_path, rewritten(without(prefix)))


@pytest.mark.parametrize("name", ["extra", "model.extra", "prior.extra", "tables.extra"])
@pytest.mark.parametrize("kind", ["dct", "mcq"])
def test_an_unknown_tensor_is_named(kind: str, name: str, tmp_path: Path) -> None:
    told = refused(tmp_path, rewritten(lambda each, _: each.update({name: torch.ones(2)}), kind))
    assert name.removeprefix("model.").removeprefix("tables.") in told


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_of_codebooks_that_are_not_finite_are_refused(
    value: float, tmp_path: Path
) -> None:
    told = refused(tmp_path, rewritten(put("model.", filled(value)), "mcq"))
    assert "a value that is not finite" in told


@pytest.mark.parametrize(
    ("prefix", "value"),
    [("model.", float("nan")), ("model.", float("inf")), ("prior.z.gain.mantissa", 0),
     ("prior.z.gain.mantissa", -5), ("prior.y1.0.shift", -128), ("tables.frequencies", 0),
     ("tables.frequencies", -1), ("tables.sizes", -1), ("tables.sizes", 2**31 - 1),
     ("tables.escapes", 2)],
)  # fmt: skip
def test_values_that_no_model_has_are_refused(prefix: str, value: float, tmp_path: Path) -> None:
    told = refused(tmp_path, rewritten(put(prefix, filled(value))))
    assert "damaged model, freeze it again" in told


@pytest.mark.parametrize("exponent", [-128, 127])
def test_gains_of_any_exponent_end_in_one_line(exponent: int, tmp_path: Path) -> None:
    refused(tmp_path, rewritten(put("prior.z.gain.exponent", filled(exponent))))


def metadata(text: str) -> bytes:
    return save_tensors({"a": torch.zeros(2)}, {store.KEY: text})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "list; expected an object"),
        ("3", "int; expected an object"),
        ("null", "NoneType; expected an object"),
        ("{", "no JSON"),
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_metadata_that_are_no_object_are_refused(text: str, said: str, tmp_path: Path) -> None:
    told = refused(tmp_path, metadata(text))
    assert told.startswith("latentworks: ")
    assert said in told


def test_weights_of_another_program_are_no_frozen_model(tmp_path: Path) -> None:
    for more in (None, {"format": "pt"}):
        told = refused(tmp_path, save_tensors({"a": torch.zeros(2)}, more))
        assert told == "latentworks: missing; these are weights, but of no frozen model"


@pytest.mark.parametrize(
    "header",
    [b"[]", b"3", b"null", b'{"__metadata__":3}', b'{"__metadata__":null}',
     b'{"__metadata__":{"latentworks":3}}', b'{"a":3}', b"[" * 50_000, b"\xff\xfe"],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(header: bytes, tmp_path: Path) -> None:
    refused(tmp_path, len(header).to_bytes(8, "little") + header)


@pytest.mark.parametrize("length", [2**62, 2**63, 2**64 - 1, 10**9])
def test_a_header_longer_than_any_memory_is_refused(length: int, tmp_path: Path) -> None:
    told = refused(tmp_path, length.to_bytes(8, "little") + file_bytes()[8:])
    assert "damaged" in told


def test_a_file_larger_than_any_model_is_not_read(tmp_path: Path) -> None:
    path = placed(tmp_path, b"")
    with path.open("r+b") as file:
        file.truncate(store.MOST_BYTES + 1)  # sparse: takes no room
    with pytest.raises(UserError, match=r"model\.safetensors: 1,073,741,825 bytes"):
        store.load(path)


class Loud:
    """Says when a pickle of it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was run",)


def test_no_pickle_is_ever_run(tmp_path: Path) -> None:
    refused(tmp_path, pickle.dumps(Loud()))
    path = tmp_path / "weights.safetensors"
    torch.save({"model": Loud()}, path)
    refused(tmp_path, path.read_bytes())


def test_a_path_that_is_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(UserError, match="cannot be read") as caught:
            store.load(path)
        assert str(caught.value).startswith(f"{path}: ")
    assert "empty" in refused(tmp_path, b"")


def test_a_shipped_model_is_of_the_kind_that_its_name_says() -> None:
    path = store.shipped()
    assert path.name == "dct.safetensors"
    assert store.load(path).kind == "dct"
    assert path.stat().st_size <= 3 * 10**6
