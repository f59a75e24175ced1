"""A process on another node, as that node tells of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from dynctl.engines.spec import ProcessSpec
from dynctl.errors import ReadyTimeout
from dynctl.nodes.peer import Peer
from dynctl.nodes.seen import LogSeen
from dynctl.nodes.words import not_ready
from dynctl.plan.values import Plan
from dynctl.runtime.managed import Managed
from dynctl.runtime.proving import PROVING
from dynctl.telemetry.status import ProcessState, ProcessStatus


class Elsewhere:
    """`proven`: the incarnation whose pairs are proven, which only the frontend's node knows; `judged`: it is here."""

    def __init__(
        self, spec: ProcessSpec, peer: Peer, ask: Callable[[str, str], Awaitable[LogSeen]], *, judged: bool
    ) -> None:
        self.spec, self.peer, self._ask, self._judged = spec, peer, ask, judged
        self.known: str | None = None
        self.proven: str | None = None
        self.proving = False
        self.unreached: str | None = None
        self.reaching: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The process's id in the plan."""
        return self.spec.id

    @property
    def incarnation(self) -> str | None:
        """Which start of it serves, as its node says; None when it does not, or the node takes no part."""
        report = self.peer.report
        return report.serving.get(self.id) if report and self.peer.alive() else None

    @property
    def state(self) -> ProcessState:
        """Its state."""
        return self.status().state

    def enter(self, phase: str) -> None:
        """Its pairs are being proven: its own node is told so."""
        self.proving = phase == PROVING

    async def seen(self) -> LogSeen:
        """What its log told so far; nothing, where its node does not answer."""
        return await self._ask(self.peer.name, self.id)

    def status(self) -> ProcessStatus:
        """Its row: as last heard, less what is known better here."""
        row = self._heard()
        if self.peer.met and not self.peer.alive():
            since = time.time() - (self.peer.age_s() or 0.0)
            return msgspec.structs.replace(
                row, state="unhealthy", since=since, phase=self.peer.why_not(), phase_since=None
            )
        if not (self._judged and self.incarnation and row.state in {"starting", "loading", "ready"}):
            return row  # by its own node it is unhealthy or taken out, whatever is proven of it
        if self.proven == self.incarnation:
            return msgspec.structs.replace(row, state="ready", phase=None, phase_since=None)
        if row.state == "ready" or self.unreached:
            return msgspec.structs.replace(row, state="loading", phase=self.unreached or PROVING, phase_since=None)
        return row

    def _heard(self) -> ProcessStatus:
        for row in self.peer.report.processes if self.peer.report else ():
            if row.id == self.id:
                return row
        return ProcessStatus.planned(self.spec)


def merged(
    plan: Plan, own: Mapping[str, Managed], elsewhere: Mapping[str, Elsewhere]
) -> Mapping[str, Managed | Elsewhere]:
    """All processes of the run in plan order: those of this node themselves, where it is the only one."""
    if not elsewhere:
        return own
    every: dict[str, Managed | Elsewhere] = {**own, **elsewhere}
    return {spec.id: every[spec.id] for spec in plan.processes}


def unreached(processes: Iterable[Elsewhere]) -> list[str]:
    """Those that serve there, and can't be reached from here, in words."""
    return [
        f"{process.id} is {process.unreached}" for process in processes if process.unreached and process.peer.alive()
    ]


def explained(
    error: ReadyTimeout, peers: Iterable[Peer], processes: Iterable[Elsewhere], *, serves: bool
) -> ReadyTimeout:
    """This node's timeout, with what the others lack. `serves`: all processes of this node do."""
    known = list(peers)
    away = [why for peer in known if (why := peer.why_not())]
    busy = {peer.name: peer.report.reason for peer in known if peer.report and peer.alive()}
    return not_ready(error, away, unreached(processes), busy, serves=serves)
