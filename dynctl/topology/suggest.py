"""What the schema knows, for error messages: keys of a section, where else a key lives, the nearest known word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic.fields import FieldInfo

from dynctl.topology.base import Section
from dynctl.topology.roles import ROLE_NAMES
from dynctl.topology.schema import Topology


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be; None when nothing is near."""
    import difflib  # only errors need it

    return next(iter(difflib.get_close_matches(word.lower()[:80], list(known), n=1, cutoff=0.6)), None)


def keys_of(path: Sequence[str | int]) -> dict[str, FieldInfo] | None:
    """The known keys of the section at `path`, as spelled in the file; None where keys are free or there are none."""
    section: type[Section] | None = Topology
    for segment in path:
        if isinstance(segment, int):
            continue
        field = _fields(section).get(segment) if section else None
        section = _section_in(field.annotation) if field else None
    return _fields(section) if section else None


def field_at(path: Sequence[str | int]) -> tuple[str, FieldInfo] | None:
    """The key at `path` and what the schema says about it; for a list's item or a free key, its known parent."""
    for end in range(len(path), 0, -1):
        key = path[end - 1]
        if isinstance(key, str) and (field := (keys_of(path[: end - 1]) or {}).get(key)):
            return key, field
    return None


def homes_of(key: str) -> list[str]:
    """The sections that know `key`, as dotted paths; the top level is the empty string. All roles count as one."""
    return sorted({path for path, name in _all_keys(Topology, "") if name == key})


def _all_keys(section: type[Section], path: str) -> Iterator[tuple[str, str]]:
    for name, field in _fields(section).items():
        yield path, name
        if inner := _section_in(field.annotation):
            step = "<role>" if path == "roles" and name in ROLE_NAMES else name
            yield from _all_keys(inner, f"{path}.{step}" if path else step)


def _fields(section: type[Section]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)
