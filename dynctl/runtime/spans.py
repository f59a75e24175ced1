"""Workers that span nodes, kept as one: this node's leaders look after their parts elsewhere, its parts follow."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from dynctl.errors import RuntimeFailure
from dynctl.nodes.messages import Report
from dynctl.nodes.parts import LIVE, Part, follow, free, lost, part
from dynctl.nodes.peer import Peer
from dynctl.plan.values import Plan
from dynctl.runtime.lifecycle import LifeEvent
from dynctl.runtime.managed import Managed

LEFT_BEHIND_S = 3.0
"""So long after its leader ended a part that still starts may hear that the run ends for it, which says more."""


class Feed(Protocol):
    """The keeper of a process."""

    def feed(self, event: LifeEvent, message: str | None = None, why: str | None = None) -> None:
        """Applies an event."""


class Links(Protocol):
    """The links to the other nodes."""

    peers: dict[str, Peer]

    def tell(self) -> None:
        """Tells them at once how it is here."""


class Spans:
    """`parts`: for each leader of this node the parts elsewhere, by id, and their nodes."""

    def __init__(self, plan: Plan, processes: Mapping[str, Managed]) -> None:
        self._processes = processes
        self._keepers: Mapping[str, Feed] = {}
        nodes = {spec.id: spec.node for spec in plan.processes}
        self._leader = {spec.id: spec.leader for spec in plan.own() if spec.leader}
        self._leads: dict[str, dict[str, str]] = {}
        for spec in plan.elsewhere():
            if spec.leader and spec.leader in processes:
                self._leads.setdefault(spec.leader, {})[spec.id] = spec.node
        self._node = {name: nodes[leader] for name, leader in self._leader.items()}
        self._taken: dict[str, set[str]] = {}

    def meet(self, links: Links, until: Callable[[Callable[[], bool]], Awaitable[None]]) -> None:
        """The other nodes, without which no worker spans any. `until`: returns once something is so in their news."""
        self._links, self._until = links, until

    def recall(self, epochs: Mapping[str, str | None]) -> None:
        """Which start each process here was last started for, as an earlier supervisor noted it.

        A leader has served, and so all its parts belonged to it: one that does not any more has ended since.
        """
        for name in (*self._leads, *self._leader):
            self._processes[name].epoch = epochs.get(name)
        self._taken = {name: set(parts) for name, parts in self._leads.items()}

    # what the other nodes are told

    def epochs(self) -> dict[str, str]:
        """Which start of each worker led from here is wanted."""
        own = self._processes
        return {name: epoch for name in self._leads if own[name].state in LIVE and (epoch := own[name].epoch)}

    def parts(self) -> dict[str, Part]:
        """The parts that run here."""
        own = self._processes
        return {name: part(p.state, p.epoch, p.progress) for name in self._leader if (p := own[name]).epoch}

    # what bring-up asks

    async def gather(self, process: Managed) -> None:
        """Returns once it may start: a leader when its parts' nodes are here and clear, a part when wanted."""
        if process.id in self._leads:
            while away := self._unready(process.id):
                process.wait_for(away)
                await self._until(lambda: self._unready(process.id) != away)
        elif process.id in self._leader and not process.epoch:
            process.wait_for(self._leader[process.id])
            await self._until(lambda: self._wanted(process.id)[1] is not None)

    def begin(self, process: Managed) -> None:
        """It starts now: a leader with a new epoch, a part with its leader's."""
        if process.id in self._leads:
            process.epoch = uuid.uuid4().hex  # never one that was, whatever became of the supervisor before
            self._taken[process.id] = set()
        elif process.id in self._leader and not process.epoch:
            process.epoch = self._wanted(process.id)[1]

    async def joined(self, process: Managed) -> None:
        """Returns when the leader of a part serves; at once for any other process."""
        if process.id in self._leader:
            await self._until(lambda: self._leader_serves(process))

    async def left_behind(self, process: Managed) -> None:
        """Raises when the leader of a part that starts has given up this start. Never returns."""
        while True:
            await self._until(lambda: self._is_left(process))
            await asyncio.sleep(LEFT_BEHIND_S)
            if self._is_left(process):
                raise RuntimeFailure(
                    f"{self._leader[process.id]} ended while {process.id} was starting",
                    where=f"process {process.id}",
                    why=f"they are one worker, led from node {self._node[process.id]}",
                    fix=f"`dynctl events` on node {self._node[process.id]} says why; start this node again",
                )

    def progress(self, process: str) -> int:
        """A number that rises as its parts elsewhere go on with their start."""
        return sum(told.progress for told in self._told(process).values()) if process in self._leads else 0

    # what keeping them asks

    def keep(self, keepers: Mapping[str, Feed]) -> None:
        """From now on they are kept by these."""
        self._keepers = keepers

    def apart(self, process: str) -> str | None:
        """Why a leader can't have all its parts, in words."""
        for node in self._leads.get(process, {}).values():
            if why := self._links.peers[node].why_not():
                return why
        return None

    def changed(self, process: Managed) -> None:
        """Its state is another: the nodes that it spans must know at once."""
        if process.id in self._leads and process.state not in LIVE:
            process.epoch = None
        if process.id in self._leads or process.id in self._leader:
            self._links.tell()

    def judge(self) -> None:
        """Another node has news, or time has passed: what follows for the workers that span nodes."""
        if not self._keepers:
            return
        for name in self._leads:
            self._lead(self._processes[name])
        for name in self._leader:
            process, (known, wanted) = self._processes[name], self._wanted(name)
            event = follow(process.state, process.epoch, wanted) if known else None
            if event == "start":
                process.epoch = wanted
            if event:
                self._keepers[name].feed(event, why=f"follows {self._leader[name]}")

    def _lead(self, process: Managed) -> None:
        epoch, told = process.epoch, self._told(process.id)
        if not epoch or process.state not in LIVE:
            return
        taken = self._taken[process.id]
        if name := lost(epoch, taken, told):
            why = f"its part {name} on node {self._leads[process.id][name]} ended"
            self._keepers[process.id].feed("broken", why, why=why)
        elif process.state == "ready" and (away := self.apart(process.id)):
            self._keepers[process.id].feed("sick", away, why=away)
        else:
            taken.update(name for name, said in told.items() if said.epoch == epoch)

    def _told(self, leader: str) -> dict[str, Part]:
        """Its parts as far as their nodes have told of them."""
        reports = {name: self._links.peers[node].report for name, node in self._leads[leader].items()}
        return {name: report.parts.get(name, Part()) for name, report in reports.items() if report}

    def _unready(self, leader: str) -> str | None:
        """What a leader has to wait for before it may start."""
        for name, node in self._leads[leader].items():
            peer = self._links.peers[node]
            if not (peer.report and peer.alive()):
                return f"node {node}"
            if not free({name: peer.report.parts.get(name, Part())}):
                return f"{name} to end"
        return None

    def _report(self, process: str) -> Report | None:
        """What the leader's node says; None while it can't be heard."""
        peer = self._links.peers[self._node[process]]
        return peer.report if peer.report and (peer.alive() or peer.report.leaving) else None

    def _wanted(self, process: str) -> tuple[bool, str | None]:
        """Whether it is known what the leader of a part wants, and which start that is."""
        report = self._report(process)
        if report is None:
            return False, None
        return True, None if report.leaving else report.epochs.get(self._leader[process])

    def _leader_serves(self, process: Managed) -> bool:
        report = self._report(process.id)
        leader = self._leader[process.id]
        return bool(report and report.epochs.get(leader) == process.epoch and leader in report.serving)

    def _is_left(self, process: Managed) -> bool:
        known, wanted = self._wanted(process.id)
        return known and process.epoch is not None and wanted != process.epoch
