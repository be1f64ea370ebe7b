"""A section of the settings; which of them may stand under a key, and which a ``kind`` means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticUndefined

Sections = Sequence[type[BaseModel]]


class Section(BaseModel):
    """A part of the settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
    )


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the section classes anywhere in an annotation, in order."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections_in(part)]


def kinds(sections: Sections) -> list[str]:
    """Return every ``kind`` that a union of sections offers."""
    fields = [
        section.model_fields["kind"] for section in sections if "kind" in section.model_fields
    ]
    return [kind for info in fields for kind in get_args(info.annotation)]


def choose(sections: Sections, value: Any) -> list[type[BaseModel]]:
    """Return the sections that a value's ``kind`` leaves, all of them if it does not decide."""
    if len(sections) < 2 or not isinstance(value, Mapping):
        return list(sections)
    chosen = [section for section in sections if value.get("kind") in kinds([section])]
    return chosen or list(sections)


def field_names(sections: Sections) -> set[str]:
    """Return the keys that any of the sections knows."""
    return {name for section in sections for name in section.model_fields}


def annotation_of(
    schema: type[BaseModel], tree: Any, path: Sequence[str | int]
) -> list[type[BaseModel]]:
    """Return the sections that may stand at a path of the settings, none for a plain value."""
    sections: list[type[BaseModel]] = [schema]
    for part in path:
        if isinstance(part, str):
            fields = [section.model_fields for section in choose(sections, tree)]
            known = [each[part].annotation for each in fields if part in each]
            sections = [section for annotation in known for section in sections_in(annotation)]
        if isinstance(tree, Mapping):
            tree = tree.get(str(part))
        else:
            tree = tree[part] if isinstance(tree, list) and isinstance(part, int) else None
    return sections


def default_of(section: type[BaseModel], name: str) -> Any:
    """Return the default of a key, None where it has none."""
    info = section.model_fields.get(name)
    if info is None or info.is_required():
        return None
    default = info.get_default(call_default_factory=True, validated_data={})
    return None if default is PydanticUndefined else default
