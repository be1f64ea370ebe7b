"""YAML as settings need it: 1.2's idea of a scalar, no key twice, the line of every key.

A file holds one document of mappings, lists and scalars. Anchors, aliases, merge keys and tags are
refused: every value stands where its key stands, so that a line can be named for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from core.runtime.errors import UserError, did_you_mean

KeyPath = tuple[str | int, ...]

LARGEST_FILE_BYTES = 1_000_000
DEEPEST_NESTING = 20

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass
class Document:
    """A parsed document: its value, the line of each key, and what is wrong with it.

    Args:
        value: Dictionaries with string keys, lists and scalars; None for an empty document.
        lines: Line number (from 1) of each key and list item.
        mistakes: ``(line, sentence)`` for everything refused that did not stop the reading.
    """

    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    mistakes: list[tuple[int, str]] = field(default_factory=list)


def read_yaml(path: Path) -> Document:
    """Read a file whose top level is a mapping.

    Raises:
        UserError: If there is no such file, it is not YAML text, it is empty or a list.
    """
    document = parse_yaml(_read_text(path), str(path))
    if document.value is None and not document.mistakes:
        raise UserError(f"{path}: is empty; expected keys such as 'domain: graph'")
    if not isinstance(document.value, dict) and not document.mistakes:
        kind = "a list" if isinstance(document.value, list) else shown(document.value)
        raise UserError(f"{path}: expected keys such as 'domain: graph' at the top, got {kind}")
    return document


def parse_yaml(text: str, where: str) -> Document:
    """Parse one document.

    Raises:
        UserError: If the text is not YAML; the message starts with ``where`` and the line.
    """
    try:
        return _Reader(text).document()
    except yaml.reader.ReaderError as error:
        problem = f"character {error.character!r} at position {error.position}"
        raise UserError(f"{where}: not a text file: {problem}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise UserError(f"{where}{line}: not YAML: {problem}") from error
    except _Refused as error:
        raise UserError(f"{where}:{error.line}: {error}") from error


def scalar(text: str) -> Any:
    """Return what a plain scalar means in YAML 1.2.

    Example:
        >>> [scalar(text) for text in ("1e-3", "NO", "12:30", "1_0", "010", "0o10", "~")]
        [0.001, 'NO', '12:30', '1_0', 10, 8, None]
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def dump_yaml(value: Any) -> str:
    """Write a value so that any YAML 1.1 or 1.2 reader gets the same bits back."""
    return yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=99,
    )


def shown(value: Any, limit: int = 60) -> str:
    """Return a value as a message shows it: YAML's words, quoted text, cut when long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        text = f"{{{', '.join(f'{key}: {shown(item)}' for key, item in value.items())}}}"
    elif isinstance(value, Sequence) and not isinstance(value, str):
        text = f"[{', '.join(shown(item) for item in value)}]"
    else:
        text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError as error:
        near = sorted(item.name for item in path.parent.glob("*.yaml"))
        raise UserError(f"{path}: no such file{did_you_mean(path.name, near)}") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {(error.strerror or str(error)).lower()}"
        ) from error
    if len(content) > LARGEST_FILE_BYTES:
        raise UserError(f"{path}: more than {LARGEST_FILE_BYTES:,} bytes; settings are smaller")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from error


class _Refused(Exception):
    """Something that stops the reading."""

    def __init__(self, sentence: str, line: int) -> None:
        super().__init__(sentence)
        self.line = line


class _Reader:
    """Builds a `Document` from the parser's events, so that nothing YAML 1.1 thinks gets in."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        self.result = Document()

    def document(self) -> Document:
        next(self.events)  # the start of the stream
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return self.result
        self.result.value = self.node(next(self.events), ())
        next(self.events)  # the end of the document
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _Refused("a second document starts here; expected one", _line(event))
        return self.result

    def node(self, event: Any, path: KeyPath) -> Any:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self.complain(event, "anchors and aliases are not used here; write the value out")
        if isinstance(event, yaml.AliasEvent):
            return None
        if event.tag not in (None, "!"):
            self.complain(event, f"tags are not used here, got {event.tag!r}; write a plain value")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        if len(path) >= DEEPEST_NESTING:
            raise _Refused(f"nested more than {DEEPEST_NESTING} deep", _line(event))
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return self.mapping(path)

    def scalar(self, event: Any) -> Any:
        text = self.text(event)
        if not event.implicit[0]:
            return text
        try:
            return scalar(text)
        except ValueError as error:  # Python refuses to read integers of thousands of digits
            raise _Refused("a number with too many digits", _line(event)) from error

    def text(self, event: Any) -> str:
        if any("\ud800" <= character <= "\udfff" for character in event.value):
            raise _Refused("half a surrogate pair is not text", _line(event))
        return event.value

    def sequence(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        for event in self.events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            place = (*path, len(items))
            self.result.lines[place] = _line(event)
            items.append(self.node(event, place))
        return items

    def mapping(self, path: KeyPath) -> dict[str, Any]:
        items: dict[str, Any] = {}
        for event in self.events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.key(event)
            place = (*path, key)
            if key in items:
                first = self.result.lines[place]
                self.complain(event, f"key {dotted(place)!r} is already on line {first}")
            self.result.lines.setdefault(place, _line(event))
            value = self.node(next(self.events), place)
            items.setdefault(key, value)
        return items

    def key(self, event: Any) -> str:
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(
                "anchors and aliases are not used here; write the key out", _line(event)
            )
        if not isinstance(event, yaml.ScalarEvent):
            raise _Refused("a key is one word, got a list or a mapping", _line(event))
        if event.value == "<<" and event.implicit[0]:
            self.complain(event, "merge keys are not used here; write the keys out")
        return self.text(event)

    def complain(self, event: Any, sentence: str) -> None:
        self.result.mistakes.append((_line(event), sentence))


def dotted(path: KeyPath) -> str:
    """Return a key path as people write it, e.g. ``data.accelerations.0``."""
    return ".".join(str(part) for part in path)


def _line(event: Any) -> int:
    return event.start_mark.line + 1


class _Dumper(yaml.SafeDumper):
    """Block style, flat lists in one line, quotes around text that a 1.2 reader mistakes."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    quote = not text.isprintable() or any(
        pattern.fullmatch(text) for pattern in (_NULL, _BOOL, _INT, _FLOAT, _SPECIAL)
    )
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if quote else None)


def _represent_list(dumper: _Dumper, items: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, (dict, list)) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
