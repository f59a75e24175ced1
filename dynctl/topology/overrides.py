"""`--set roles.decode.workers=2`: values from the command line laid over the file."""

from __future__ import annotations

from collections.abc import Sequence

from dynctl.errors import UsageError
from dynctl.topology.nodes import Entry, Map, Node, Place, Scalar, Seq, dotted, scalar_value, shown
from dynctl.topology.yaml_source import MAX_DEPTH, compose_value


def apply_overrides(root: Map, overrides: Sequence[str]) -> Map:
    """A new tree with each `path=value` set in turn; UsageError that names the override for one that can't be."""
    for text in overrides:
        place = Place(f"--set {shown(text, 200)}")
        path, equals, value = text.partition("=")
        segments = path.strip().split(".")
        if not equals or not all(segments) or len(segments) > MAX_DEPTH:
            raise UsageError(
                f"`{place}` is not of the form path=value",
                where=str(place),
                why="an override names a key by its path in the file, an equals sign, and the new value",
                fix="for example --set roles.decode.workers=2",
            )
        changed = _with(root, segments, (), compose_value(value, place), place)
        assert isinstance(changed, Map)  # noqa: S101 - a mapping stays one
        root = changed
    return root


def _with(node: Node, rest: Sequence[str], done: tuple[str, ...], value: Node, place: Place) -> Node:
    """A copy of `node` in which `rest` leads to `value`. Copies, because aliases share nodes."""
    if not rest:
        return value
    head, tail, here = rest[0], rest[1:], (*done, rest[0])
    if isinstance(node, Scalar) and scalar_value(node) is None:
        node = Map({}, place)
    if isinstance(node, Map):
        old = node.entries.get(head)
        child = _with(old.node if old else Map({}, place), tail, here, value, place)
        key_place = place if not tail or old is None else old.key_place
        return Map({**node.entries, head: Entry(key_place, child)}, node.place)
    if isinstance(node, Seq) and head.isascii() and head.isdigit() and len(head) < 6 and int(head) < len(node.items):
        index = int(head)
        items = (*node.items[:index], _with(node.items[index], tail, here, value, place), *node.items[index + 1 :])
        return Seq(items, node.place)
    raise _no_way(node, done, head, place)


def _no_way(node: Node, done: tuple[str, ...], head: str, place: Place) -> UsageError:
    parent = dotted(done)
    if isinstance(node, Seq):
        why = f"`{parent}` is a list of {len(node.items)} and has no item `{shown(head)}`"
        return UsageError(
            f"`{parent}.{shown(head)}` can't be set", where=str(place), why=why, fix=f"set {parent} as a whole"
        )
    why = f"`{parent}` is a single value ({node.place}), not a mapping"
    return UsageError(f"`{parent}.{shown(head)}` can't be set", where=str(place), why=why, fix=f"set {parent} itself")
