"""A YAML document as a tree that remembers where each key and value was written and how it was spelled."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """Where something was written: a file and its line, or (without a line) an override on the command line."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as spelled; `plain` when it has no quotes and may therefore be a number, true, false or null."""

    text: str
    plain: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Seq:
    """A list."""

    items: tuple[Node, ...]
    place: Place


class Entry(NamedTuple):
    """A value and the place of its key."""

    key_place: Place
    node: Node


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping; keys are always text, so that `on:` stays `on`."""

    entries: dict[str, Entry]
    place: Place


Node = Scalar | Seq | Map

_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LONGEST_NUMBER = 30


def scalar_value(node: Scalar) -> str | int | float | bool | None:
    """The value of a scalar by YAML 1.2's core rules: `no`, `on`, `1:30` and dates are text, as in every editor."""
    text = node.text
    if not node.plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def to_data(node: Node, path: Path = ()) -> Any:
    """The tree as plain Python data: dict, list, str, int, float, bool, None."""
    if isinstance(node, Map):
        return {key: to_data(entry.node, (*path, key)) for key, entry in node.entries.items()}
    if isinstance(node, Seq):
        return [to_data(item, (*path, index)) for index, item in enumerate(node.items)]
    if _is_env(path):
        return node.text
    value = scalar_value(node)
    if _is_flag(path) and isinstance(value, int | float) and not isinstance(value, bool) and str(value) != node.text:
        return node.text
    return value


def _is_env(path: Path) -> bool:
    """Environment values are handed on as spelled: `n`, `0x10` and `1.0` mean something to whoever reads them."""
    if path[:1] == ("x-k8s",):
        return len(path) > 2 and path[-2] == "env"
    return path[:-1] == ("transport", "env") or (len(path) == 4 and path[0] == "roles" and path[2] == "env")


def _is_flag(path: Path) -> bool:
    """An engine flag. A number that would print otherwise than it was written (`0.90`, `1e3`) stays text."""
    return len(path) == 4 and path[0] == "roles" and path[2] == "args"


def place_of(root: Node, path: Sequence[str | int]) -> Place:
    """Where the key at `path` was written; of what is not there, where its nearest written parent was."""
    node, place = root, root.place
    for segment in path:
        if isinstance(node, Map) and isinstance(segment, str) and segment in node.entries:
            place, node = node.entries[segment]
        elif isinstance(node, Seq) and isinstance(segment, int) and segment < len(node.items):
            node = node.items[segment]
            place = node.place
        else:
            break
    return place


class Origin:
    """Where a topology was written. All are equal, so that topologies compare by what they say."""

    def __init__(self, root: Node | None = None) -> None:
        self._root = root

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return 0

    def data(self, key: str) -> Any:
        """What stands at a top-level key, whether the schema knows it or not; None where there is nothing."""
        if not isinstance(self._root, Map) or key not in self._root.entries:
            return None
        return to_data(self._root.entries[key].node, (key,))

    def where(self, path: Sequence[str | int]) -> str:
        """`FILE:LINE dotted.path`; the path alone for what was made without a file."""
        return dotted(path) if self._root is None else f"{place_of(self._root, path)} {dotted(path)}".rstrip()


def shown(text: str, limit: int = 60) -> str:
    """`text` for a one-line message: shortened, and without anything that a terminal would act on."""
    short = text if len(text) <= limit else f"{text[: limit - 3]}..."
    return short if short.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in short)


def dotted(path: Sequence[str | int]) -> str:
    """`roles.decode.pin[0].gpus`."""
    out = ""
    for segment in path:
        out += f"[{segment}]" if isinstance(segment, int) else f".{shown(segment)}" if out else shown(segment)
    return out
