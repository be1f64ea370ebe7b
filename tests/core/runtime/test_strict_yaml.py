"""What a settings file may look like, and what its text means."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from core.runtime.errors import UserError
from core.runtime.strict_yaml import (
    LARGEST_FILE_BYTES,
    dump_yaml,
    parse_yaml,
    read_yaml,
    scalar,
    shown,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("3E5", 3e5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.0", -0.0),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("+7", 7),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("NO", "NO"),
        ("yes", "yes"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("12:30", "12:30"),
        ("1_0", "1_0"),
        ("0b11", "0b11"),
        ("2026-11-23", "2026-11-23"),
        ("1e", "1e"),
        ("e3", "e3"),
        (".", "."),
        ("=", "="),
        ("tRue", "tRue"),
        ("inf", "inf"),
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: Any) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


def test_infinity_and_nan_are_numbers() -> None:
    assert scalar("-.inf") == -math.inf
    assert math.isnan(scalar(".nan"))


def test_quoted_text_is_always_text() -> None:
    document = parse_yaml("a: '1e-3'\nb: \"true\"\nc: ''\nd: |\n  5\n", "x.yaml")
    assert document.value == {"a": "1e-3", "b": "true", "c": "", "d": "5\n"}


def test_every_key_and_item_knows_its_line() -> None:
    document = parse_yaml("a:\n  b: 1\n\n  c: [2,\n    3]\n", "x.yaml")
    lines = {("a",): 1, ("a", "b"): 2, ("a", "c"): 4, ("a", "c", 0): 4, ("a", "c", 1): 5}
    assert document.lines == lines


def test_a_key_given_twice_is_a_mistake_with_both_lines() -> None:
    document = parse_yaml("a:\n  b: 1\n  c: 2\n  b: 3\n", "x.yaml")
    assert document.mistakes == [(4, "key 'a.b' is already on line 2")]
    assert document.value == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: &x 1", "anchors"),
        ("a: &x 1\nb: *x", "anchors"),
        ("a: !!int '3'", "tags"),
        ("a: !!python/object/apply:os.system [ls]", "tags"),
        ("<<: {a: 1}", "merge keys"),
    ],
)
def test_what_hides_a_value_from_its_line_is_refused(text: str, word: str) -> None:
    assert any(word in sentence for _, sentence in parse_yaml(text, "x.yaml").mistakes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"# only a comment\n", "is empty"),
        (b"---\n", "is empty"),
        (b"- a\n- b\n", "got a list"),
        (b"graph\n", "got 'graph'"),
        (b"a: \xff\n", "not UTF-8 text (byte 3)"),
        (b"a: 1\x00\n", "not a text file"),
        (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8 text"),
        (b"a: [1, 2\nb: 3\n", "not YAML"),
        (b"a: 1\n b: 2\n", "not YAML"),
        (b"a: 1\n\tb: 2\n", "not YAML"),
        (b"a: 1\n---\na: 2\n", "a second document"),
        (b"a: " + b"[" * 500, "nested more than 20 deep"),
        (b"a: " + b"9" * 5000, "too many digits"),
        (b'a: "\\ud800"', "surrogate"),
        (b"? [a, b]\n: 1\n", "a key is one word"),
        (b"a: 1\n" * (LARGEST_FILE_BYTES // 5 + 1), "settings are smaller"),
    ],
)
def test_a_file_that_is_no_settings_is_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "cora.yaml").write_text("domain: graph\n")
    with pytest.raises(UserError, match=r"no such file; did you mean 'cora.yaml'\?"):
        read_yaml(tmp_path / "cora.yml")


def test_a_folder_is_not_a_settings_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read: is a directory"):
        read_yaml(tmp_path)


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfdomain: graph\r\nseed: 1\r\n")
    assert read_yaml(path).value == {"domain": "graph", "seed": 1}


_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "1e-3",
        "NO",
        "on",
        "12:30",
        "1_0",
        "010",
        "0o7",
        "~",
        "null",
        ".inf",
        "<<",
        "=",
        "# a",
        "- a",
    ]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(_text, _values, min_size=1, max_size=4))
def test_what_is_dumped_reads_back_bit_for_bit(tree: dict[str, Any]) -> None:
    document = parse_yaml(dump_yaml(tree), "x.yaml")
    assert [sentence for _, sentence in document.mistakes] == []
    assert repr(document.value) == repr(tree)


@given(_values)
@settings(max_examples=100, deadline=None)
def test_an_ordinary_yaml_1_1_reader_agrees(value: Any) -> None:
    assert repr(yaml.safe_load(dump_yaml({"a": value}))) == repr({"a": value})


def test_a_message_shows_a_value_in_yaml_words() -> None:
    assert shown([None, True, "a", 1.5, {"b": 2}]) == "[null, true, 'a', 1.5, {b: 2}]"
    assert len(shown("x" * 500)) == 60
