"""Validation failures in the user's words: what is wrong with which key, why, and what to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dynctl.errors import UsageError
from dynctl.topology.nodes import Map, Origin, Path, dotted, place_of, shown
from dynctl.topology.suggest import field_at, homes_of, keys_of, nearest

MAX_MORE = 8

_TYPE_WORDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a mapping (`key: value` lines)",
    "model_type": "a mapping (`key: value` lines)",
    "model_attributes_type": "a mapping (`key: value` lines)",
    "tuple_type": "a list",
    "list_type": "a list",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class Problem(NamedTuple):
    """One thing wrong with the key at `path`; `cause` continues "`path` ...". `missing`: the key is not there."""

    path: Path
    cause: str
    why: str
    fix: str

    def sentence(self) -> str:
        """The cause with its subject."""
        return f"`{dotted(self.path)}` {self.cause}" if self.path else f"this topology {self.cause}"


def to_error(problems: Sequence[Problem], root: Map, unlisted: int = 0) -> UsageError:
    """One error for all of them, in the order of the file: the first in full, the others as `why` lines."""
    placed = sorted(((place_of(root, p.path), p) for p in problems), key=lambda item: item[0].line or 0)
    first, more = placed[0][1], placed[1:]
    why = [first.why, *(f"also {at}: {p.sentence()} (fix: {p.fix})" for at, p in more[:MAX_MORE])]
    if unlisted := unlisted + max(0, len(more) - MAX_MORE):
        why.append(f"and {unlisted} more problems")
    return UsageError(first.sentence(), where=Origin(root).where(first.path), why=why, fix=first.fix)


def from_validation(error: ValidationError, root: Map) -> UsageError:
    """What pydantic found, translated. Of very many problems only the first ones in the file are looked at closely."""
    details = sorted(error.errors(include_url=False), key=lambda detail: place_of(root, detail["loc"]).line or 0)
    first = details[: MAX_MORE + 1]
    return to_error([_problem(detail) for detail in first], root, unlisted=len(details) - len(first))


def _problem(detail: ErrorDetails) -> Problem:
    context: Mapping[str, Any] = detail.get("ctx") or {}
    path: Path = tuple(segment for segment in detail["loc"] if segment != "[key]")
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return Problem(path, "is missing", _about(path), f"add {_example(path)}")
    if kind == "dynctl":
        path, cause = (*path, *context["at"]), str(context["cause"])
        cause = f"{cause}, not {_show(detail['input'])}" if cause.startswith("must be") else cause
        return Problem(path, cause, context["why"] or _about(path), context["fix"] or f"for example {_example(path)}")
    if kind == "literal_error":
        return _not_one_of(path, detail["input"])
    if words := _TYPE_WORDS.get(kind):
        return Problem(
            path, f"must be {words}, not {_show(detail['input'])}", _about(path), _type_fix(path, kind, detail["input"])
        )
    if set(context) & set(_BOUNDS):
        cause = f"must be {_range(path)}, not {_show(detail['input'])}"
        return Problem(path, cause, _about(path), f"for example {_example(path)}")
    return Problem(path, f"is wrong: {detail['msg'][:200]}", _about(path), f"for example {_example(path)}")


def _unknown_key(path: Path) -> Problem:
    parent, key = path[:-1], str(path[-1])
    known = sorted(keys_of(parent) or {})
    why = f"the keys {'of `' + dotted(parent) + '`' if parent else 'at the top level'} are: {', '.join(known)}"
    homes = [home for home in homes_of(key) if home != dotted(parent)]
    if homes:
        fix = " or ".join(f"under `{home}`" if home else "at the top level" for home in homes[:3])
        fix = f"`{shown(key)}` belongs {fix}"
    elif near := nearest(key, known):
        fix = f"did you mean `{near}`?"
    else:
        fix = "remove it, or begin it with `x-` to keep it as a note of your own"
    return Problem(path, "is not a known key", why, fix)


def _not_one_of(path: Path, value: Any) -> Problem:
    known = field_at(path)
    choices = [str(choice) for choice in _literals(known[1].annotation)] if known else []
    near = nearest(str(value), choices)
    listed = choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    fix = (
        f"did you mean `{near}`?"
        if near
        else f"write `{path[-1]}: {choices[0]}`"
        if choices
        else "choose another value"
    )
    return Problem(path, f"must be {listed}, not {_show(value)}", _about(path), fix)


def _range(path: Path) -> str:
    """The bounds of a number in words, all of them."""
    rules = known[1].metadata if (known := field_at(path)) else ()
    bounds = {name: getattr(rule, name) for rule in rules for name in _BOUNDS if hasattr(rule, name)}
    if set(bounds) == {"ge", "le"}:
        return f"from {bounds['ge']} to {bounds['le']}"
    return " and ".join(f"{_BOUNDS[name]} {bound}" for name, bound in bounds.items()) or "zero or more"


def _literals(annotation: Any) -> list[Any]:
    out: list[Any] = []
    for part in get_args(annotation):
        out += [part] if isinstance(part, str | int) else _literals(part)
    return out


def _type_fix(path: Path, kind: str, value: Any) -> str:
    if kind == "bool_type" and str(value).lower() in ("yes", "on", "y", "no", "off", "n"):
        return f"write `{path[-1]}: {'true' if str(value).lower() in ('yes', 'on', 'y') else 'false'}`"
    if kind == "string_type" and isinstance(value, bool | int | float) and isinstance(path[-1], str):
        return f'put it in quotes if it is meant as text: `{path[-1]}: "{str(value)[:40]}"`'
    if kind == "int_type" and isinstance(value, str) and value.strip().isdecimal():
        return "write the number without quotes"
    return f"for example {_example(path)}"


def _show(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = shown(str(value))
    return f'the text "{text}"' if isinstance(value, str) else text


def _about(path: Path) -> str:
    """What the key stands for, from its description in the schema."""
    if not (known := field_at(path)):
        return "see `dynctl schema` for what goes here"
    key, field = known
    text = (field.description or "").rstrip(".")
    return f"`{key}` means: {text[:1].lower() + text[1:] if text[1:2].islower() else text}"


def _example(path: Path) -> str:
    known = field_at(path)
    return f"`{known[0]}: {_flow((known[1].examples or ['...'])[0])}`" if known else "what `dynctl schema` shows"


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
