"""One picture of a run from what each of its nodes tells of it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus
from dynctl.ui.figures import format_clock
from dynctl.ui.plain import message_of, subject


def together(statuses: Mapping[str, RunStatus], head: str) -> RunStatus:
    """The status as the frontend's node has it, or any node until that one has spoken.

    While the run starts or ends, each process is as its own node has it; in between the frontend's node knows best,
    which also knows whom it can't reach.
    """
    base = statuses.get(head) or next(iter(statuses.values()))
    own = {row.id: row for node, status in statuses.items() for row in status.processes if row.node == node}
    if base.state in ("ready", "degraded"):
        return base
    rows = tuple(own.get(row.id, row) for row in base.processes)
    return msgspec.structs.replace(base, processes=rows)


def line(node: str, event: Event, width: int) -> str:
    """`17:03:12 b  prefill-0    loading weights`: a plain line with the node; `width`: of the longest node's name."""
    return f"{format_clock(event.at)} {node:<{width}}  {subject(event):<11}  {message_of(event)}"


def said(node: str, event: Event) -> Event:
    """The event with its node in front of what it is about, for a view that knows no nodes."""
    return msgspec.structs.replace(event, process=f"{node} {subject(event)}")


def document(node: str, event: Event) -> bytes:
    """The event as one JSON line with its node."""
    return msgspec.json.encode({"node": node, **msgspec.to_builtins(event)})


def farewell(name: str, status: RunStatus, head: str, destination: str | None) -> list[str]:
    """What to say of a run that is left alone: where it serves, how to look at it, how to end it.

    `destination`: of the frontend's node; None for this host.
    """
    verdict = f", KV over {status.transport.verdict}" if status.transport.pairs else ""
    ssh = f"ssh {destination} " if destination else ""
    return [
        f"{name} is ready at {status.frontend.url}/v1 on node {head}{verdict}",
        f"  look  {ssh}dynctl status {name}",
        f"  end   {ssh}dynctl down {name} --all",
    ]
