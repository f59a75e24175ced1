"""Keys that schema 1 knows and this version of dynctl does not act on yet. The only list of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dynctl.topology.nodes import Path
from dynctl.topology.problems import Problem
from dynctl.topology.schema import Topology

NOT_YET: dict[Path, tuple[Any, ...]] = {
    ("frontend", "workers"): (1,),
}
"""Path, where `*` is any role, and the values that change nothing and are therefore accepted."""


def not_yet(topology: Topology) -> list[Problem]:
    """A problem for each key that would have no effect."""
    return [
        Problem(
            path,
            "is a known key, not supported by this version of dynctl"
            + (f" with the value {value}" if accepted[-1] else ""),
            why="it would have no effect, and silence about that would mislead",
            fix=f"write `{path[-1]}: {accepted[-1]}`, or leave it out" if accepted[-1] else "leave it out",
        )
        for pattern, accepted in NOT_YET.items()
        for path, value in _values(topology, pattern)
        if value not in accepted
    ]


def _values(topology: Topology, pattern: Path) -> Iterator[tuple[Path, Any]]:
    if pattern[:2] == ("roles", "*"):
        for name, role in topology.roles.present():
            yield ("roles", name, *pattern[2:]), getattr(role, str(pattern[2]))
        return
    value: Any = topology
    for segment in pattern:
        value = getattr(value, str(segment))
    yield pattern, value
