"""The last gate of a run of several nodes: opened by the frontend's node, awaited by the others."""

from __future__ import annotations

import asyncio

from dynctl.errors import DynctlError, RuntimeFailure
from dynctl.nodes.failed import Failed
from dynctl.nodes.messages import Unproven
from dynctl.plan.values import Plan
from dynctl.runtime.elsewhere import Elsewhere
from dynctl.runtime.neighbours import Neighbours
from dynctl.runtime.outcome import flat, innermost
from dynctl.runtime.pairs import PairsProver
from dynctl.runtime.proving import Proving
from dynctl.runtime.rejoining import note_proven, note_unproven
from dynctl.runtime.serving import Serving
from dynctl.runtime.waits import first_of
from dynctl.store.log import EventLog

AGAIN_S = 1.0
LONGEST_AGAIN_S = 30.0
TRIES = 2
"""So many proofs in a row that fail are the process's fault; one may be the network's between the nodes."""


class HeadProver(PairsProver):
    """Proves the processes of all nodes; what came back elsewhere is proven again as what came back here."""

    def __init__(
        self, plan: Plan, proving: Proving, serving: Serving, neighbours: Neighbours, events: EventLog
    ) -> None:
        super().__init__(plan, proving, serving)
        self._neighbours, self._events = neighbours, events

    async def all(self) -> None:
        """Every pair of all nodes; every node has to be there."""
        await super().all()
        await self._neighbours.until(lambda: not self._neighbours.away())
        for process in self._neighbours.elsewhere.values():
            process.proven, process.proving = process.known, False
            note_proven(self._events, process)

    async def keep(self) -> None:
        """Proves again whatever comes back on another node, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for process in self._neighbours.elsewhere.values():
                group.create_task(self._keep(process))

    async def _keep(self, process: Elsewhere) -> None:
        wait_s, failures = AGAIN_S, 0
        while True:
            await self._neighbours.until(lambda: process.id in self._serving and process.proven != process.known)
            incarnation = process.known
            try:
                if await first_of(self.again(process.id), self._serving.go(process.id)) == 0:
                    process.proven, process.proving, wait_s, failures = incarnation, False, AGAIN_S, 0
                    self._events.add("process.state", "ready again", process=process.id, state="ready")
                    note_proven(self._events, process)
                continue
            except (DynctlError, TimeoutError, ExceptionGroup) as error:
                note_unproven(self._events, process, flat(error))
                failures += 1
                if failures == TRIES and incarnation:
                    self._give_up(process, incarnation, innermost(error))
                    failures = 0
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_AGAIN_S)

    def _give_up(self, process: Elsewhere, incarnation: str, error: BaseException) -> None:
        """Its own node has it started again, by its restart rule, as this one would one of its own."""
        known = error if isinstance(error, DynctlError) else RuntimeFailure(flat(error))
        failed = Failed.of(known)
        self._events.add("node", f"node {process.spec.node} is asked to start {process.id} anew", process=process.id)
        self._neighbours.exchange.tell_unproven(
            process.spec.node, Unproven(process=process.id, incarnation=incarnation, failed=failed)
        )


class MemberProver:
    """Waits for the word of the frontend's node, the head."""

    def __init__(self, plan: Plan, serving: Serving, neighbours: Neighbours) -> None:
        self._plan, self._serving, self._neighbours = plan, serving, neighbours

    async def all(self) -> None:
        """The deployment is ready, this node's processes with it."""
        for process in self._plan.own():
            await self._serving.come(process.id)
        await self._neighbours.until(self._all_proven)

    async def again(self, process: str) -> None:
        """That process is proven as it runs now. Nobody can do that, and no time counts, while the head is away."""
        neighbours = self._neighbours
        while not self._proven(process):
            await neighbours.until(lambda: neighbours.word() is not None)
            async with asyncio.timeout(self._plan.ready.timeout_s):
                await neighbours.until(lambda: self._proven(process) or neighbours.word() is None)

    def _all_proven(self) -> bool:
        word = self._neighbours.word()
        return word is not None and word.ready and all(self._proven(process.id) for process in self._plan.own())

    def _proven(self, process: str) -> bool:
        word, mark = self._neighbours.word(), self._neighbours.incarnation(process)
        return word is not None and mark is not None and word.proven.get(process) == mark
