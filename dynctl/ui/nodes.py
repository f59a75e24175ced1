"""The table of nodes: each as seen from this one, or as last heard."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from dynctl.telemetry.status import NodeStatus, RunStatus
from dynctl.ui.figures import clean, format_duration
from dynctl.ui.processes import WIDE, plain_table
from dynctl.ui.words import STATE_STYLE, mark

MOST_NODES = 8
"""So many in the live view; those that don't serve come first."""
ENDED = ("stopped", "failed")


def nodes_heading(status: RunStatus) -> str:
    """Ages of a run that has ended are those of its end."""
    return "nodes when this one ended" if status.state in ENDED else "nodes"


def node_table(status: RunStatus, *, width: int, most: int) -> RenderableType:
    """Name, address, state, how long ago it was heard, and what it says or why it is missed; at most `most`."""
    wide = width >= WIDE
    table = plain_table(width, wide)
    table.add_column("NODE", no_wrap=True, overflow="ellipsis", max_width=24 if wide else 12)
    table.add_column("ADDRESS", no_wrap=True, overflow="ellipsis", max_width=39 if wide else 15)
    table.add_column("STATE", no_wrap=True)
    table.add_column("HEARD", no_wrap=True)
    table.add_column("REASON", overflow="fold", ratio=None if wide else 1)
    shown = _shown(status.nodes, most)
    for node in shown:
        table.add_row(*_row(node))
    more = len(status.nodes) - len(shown)
    return Group(table, Text(f"and {more} more", "bright_black")) if more else table


def node_words(node: NodeStatus) -> str:
    """`node b lost (not heard for 7 s)`: for a line of text."""
    return f"node {clean(node.name)} {node.state}" + (f" ({clean(node.reason)})" if node.reason else "")


def _shown(nodes: Sequence[NodeStatus], most: int) -> Sequence[NodeStatus]:
    """In the file's order; where there are too many, whole ones are left out first."""
    if len(nodes) <= most:
        return nodes
    chosen = sorted(nodes, key=lambda node: node.state == "ready" and not node.here)[:most]
    return [node for node in nodes if node in chosen]


def _row(node: NodeStatus) -> list[Text]:
    return [
        Text(clean(node.name), style="bold"),
        Text(clean(node.address)),
        Text(f"{mark(node.state)} {node.state}", style=STATE_STYLE.get(node.state, "")),
        Text(_heard(node), style="bright_black"),
        Text(_reason(node)),
    ]


def _heard(node: NodeStatus) -> str:
    if node.here:
        return "here"
    return "never" if node.age_s is None else f"{format_duration(node.age_s)} ago"


def _reason(node: NodeStatus) -> str:
    """A node that is lost may be anything by now: what it said last is told as that."""
    last = f"last said: {node.heard}" if node.state == "lost" and node.heard else ""
    return "; ".join(part for part in (clean(node.reason or ""), last) if part)
