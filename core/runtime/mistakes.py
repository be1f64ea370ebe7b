"""What is wrong with some settings: where, which key, what was given, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from core.runtime.errors import UserError, did_you_mean
from core.runtime.sections import annotation_of, choose, field_names, kinds, sections_in
from core.runtime.strict_yaml import KeyPath, dotted, shown


@dataclass(frozen=True, order=True)
class Mistake:
    """One line of a report.

    Args:
        where: ``file:line``, ``--set key`` or the file alone.
        sentence: What was given and what is allowed.
        path: The key, for merging what pydantic says twice.
    """

    where: str
    sentence: str
    path: KeyPath = field(default=(), compare=False)


def report(file: str, mistakes: Sequence[Mistake]) -> UserError:
    """Return one error for all mistakes, a line each, after their number if there are several."""
    ordered = sorted(mistakes, key=_place)
    lines = list(dict.fromkeys(f"{mistake.where}: {mistake.sentence}" for mistake in ordered))
    return UserError(
        lines[0] if len(lines) == 1 else "\n".join([f"{file}: {len(lines)} mistakes", *lines])
    )


def translate(
    schema: type[BaseModel],
    tree: Mapping[str, Any],
    where: Mapping[KeyPath, str],
    file: str,
    error: ValidationError,
) -> list[Mistake]:
    """Return the mistakes that pydantic found, one per key."""
    found: dict[tuple[KeyPath, str], list[str]] = {}
    for entry in error.errors(include_url=False):
        path = _key_path(schema, tree, entry["loc"])
        place = _where(schema, tree, where, file, path, entry)
        found.setdefault((path, place), []).append(_expected(schema, tree, path, entry))
    return [
        Mistake(place, _sentence(place, path, _joined(sentences)), path)
        for (path, place), sentences in found.items()
    ]


def _key_path(schema: type[BaseModel], tree: Any, loc: Sequence[str | int]) -> KeyPath:
    """Drop from pydantic's location what is no key: tags of unions, names of validators."""
    path: list[str | int] = []
    for part in loc:
        sections = annotation_of(schema, tree, path)
        value = _value(tree, path)
        if len(sections) > 1 and part in kinds(sections) and choose(sections, value) != sections:
            continue
        is_key = part in field_names(sections) or (isinstance(value, Mapping) and part in value)
        is_item = isinstance(value, list) and isinstance(part, int)
        if is_key or is_item:
            path.append(part)
    return tuple(path)


def _where(
    schema: type[BaseModel],
    tree: Any,
    where: Mapping[KeyPath, str],
    file: str,
    path: KeyPath,
    entry: Any,
) -> str:
    if entry["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, "kind")
    if entry["type"] == "value_error":
        named = [place for place in _named(entry["msg"], path) if place in where]
        if named:
            return where[max(named, key=lambda place: where[place].startswith("--set"))]
    for length in range(len(path), 0, -1):
        if path[:length] in where:
            place = where[path[:length]]
            return file if place == "file name" else place
    return file


def _named(message: str, path: KeyPath) -> Iterator[KeyPath]:
    """The keys below a section that a validator's message may be naming."""
    for word in re.findall(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)*", message):
        yield (*path, *word.split("."))


def _expected(schema: type[BaseModel], tree: Any, path: KeyPath, entry: Any) -> str:
    value, context = _value(tree, path), entry.get("ctx", {})
    match entry["type"]:
        case "missing":
            return f"missing key {dotted(path)!r}{_offer(schema, tree, path)}"
        case "extra_forbidden":
            return f"unknown key {dotted(path)!r}{_suggest(schema, tree, path)}"
        case "union_tag_not_found":
            return f"missing key '{dotted((*path, 'kind'))}'; one of {_words(schema, tree, path)}"
        case "union_tag_invalid":
            allowed = kinds(annotation_of(schema, tree, path))
            near = did_you_mean(str(context.get("tag")), allowed)
            got = f"{_words(schema, tree, path)}, got {context.get('tag')!r}{near}"
            return f"{dotted((*path, 'kind'))}: input should be {got}"
        case "value_error":
            return entry["msg"].removeprefix("Value error, ")
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected keys below it, got {shown(value)}"
        case "string_pattern_mismatch" if path == ("name",):
            return f"should be lower-case letters, digits, '.', '_' and '-', got {shown(value)}"
        case "literal_error" | "enum":
            near = (
                did_you_mean(value, re.findall(r"'([^']*)'", context["expected"]))
                if isinstance(value, str)
                else ""
            )
            return f"{_lower(entry['msg'])}, got {shown(value)}{near}"
        case "int_type" | "int_from_float" if isinstance(value, float) and value.is_integer():
            return f"input should be an integer, got {shown(value)}; write {int(value)}"
    return f"{_lower(entry['msg'])}, got {shown(value)}"


def _offer(schema: type[BaseModel], tree: Any, path: KeyPath) -> str:
    """The values a missing key may take, where they are few words."""
    for section in choose(annotation_of(schema, tree, path[:-1]), _value(tree, path[:-1])):
        info = section.model_fields.get(str(path[-1]))
        if info is not None and not sections_in(info.annotation):
            return f" ({info.description})" if info.description else ""
    return ""


def _suggest(schema: type[BaseModel], tree: Any, path: KeyPath) -> str:
    """The nearest key allowed here, or the kind to which this one belongs."""
    sections, section = annotation_of(schema, tree, path[:-1]), _value(tree, path[:-1])
    name = str(path[-1])
    owners = [each for each in sections if name in each.model_fields]
    if owners:
        belongs = " or ".join(repr(kind) for kind in kinds(owners))
        return f"; it belongs to kind {belongs}, not to {shown(section.get('kind'))}"
    known = field_names(choose(sections, section))
    near = did_you_mean(name, sorted(known)) or _elsewhere(sections, name)
    return near or (f"; there are: {', '.join(sorted(known))}" if len(known) <= 12 else "")


def _elsewhere(sections: Sequence[type[BaseModel]], name: str) -> str:
    """The one section below that has this key."""
    below = [
        key
        for section in sections
        for key, info in section.model_fields.items()
        if name in field_names(sections_in(info.annotation))
    ]
    return f"; did you mean '{below[0]}.{name}'?" if len(below) == 1 else ""


def _words(schema: type[BaseModel], tree: Any, path: KeyPath) -> str:
    return _either([repr(kind) for kind in kinds(annotation_of(schema, tree, path))])


def _sentence(place: str, path: KeyPath, sentence: str) -> str:
    """Put the key in front unless the sentence or the place already names it."""
    key = dotted(path)
    named = not key or sentence.startswith((f"{key}.", f"{key}:")) or f"'{key}" in sentence
    return sentence if named or place == f"--set {key}" else f"{key}: {sentence}"


def _joined(sentences: Sequence[str]) -> str:
    """Merge what pydantic says of each member of a union into one sentence."""
    if len(sentences) == 1:
        return sentences[0]
    parts = [sentence.partition(", got ") for sentence in sentences]
    wants = [want.removeprefix("input should be ") for want, _, _ in parts]
    return f"input should be {_either(list(dict.fromkeys(wants)))}, got {parts[0][2]}"


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _lower(message: str) -> str:
    message = message.replace("Input should be a valid ", "Input should be a ")
    message = message.replace("should be a integer", "should be an integer")
    return message[:1].lower() + message[1:]


def _value(tree: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        if isinstance(tree, Mapping):
            tree = tree.get(part)
        else:
            tree = tree[part] if isinstance(tree, list) and isinstance(part, int) else None
    return tree


def _place(mistake: Mistake) -> tuple[bool, int, str]:
    """Sort by line, then the overrides."""
    line = re.search(r":(\d+)$", mistake.where)
    return mistake.where.startswith("--set"), int(line.group(1)) if line else 0, mistake.where
