"""What a node that is adopted needs to be taken in again: which starts elsewhere are proven, noted among the events."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from dynctl.errors import HostError
from dynctl.nodes.exchange import Exchange
from dynctl.plan.values import Plan
from dynctl.runtime.elsewhere import Elsewhere
from dynctl.store.event import Event
from dynctl.store.log import EventLog

MARK = "incarnation"
AGAIN_S = 1.0


def note_proven(events: EventLog, process: Elsewhere) -> None:
    """It is proven as it runs now."""
    events.add("gate", f"proven, on node {process.spec.node}", process=process.id, data={MARK: process.proven})


def note_unproven(events: EventLog, process: Elsewhere, why: str) -> None:
    """Its proof failed."""
    events.add("error", f"{process.id}: {why}", process=process.id, data={MARK: None})


def proven_before(past: Iterable[Event], plan: Plan) -> dict[str, str]:
    """The incarnations that were proven last, by process id. One whose node was lost, or met, since then is not."""
    nodes = {spec.id: spec.node for spec in plan.elsewhere()}
    found: dict[str, str | None] = {}
    for event in past:
        if event.kind == "node":
            found = {process: mark for process, mark in found.items() if nodes[process] != event.data.get("node")}
        elif event.process in nodes and MARK in event.data:
            found[event.process] = event.data[MARK]
    return {process: mark for process, mark in found.items() if isinstance(mark, str)}


async def listen_again(exchange: Exchange, events: EventLog) -> None:
    """Joins the others. A port that is taken ends nothing: this node's workers serve on, lost to the others."""
    said = False
    while True:
        try:
            return await exchange.start()
        except HostError as error:
            if not said:
                events.add("warning", error.cause, why=error.why[0] if error.why else None)
            said = True
        await asyncio.sleep(AGAIN_S)
