"""The last gate of a run of several nodes: opened by the frontend's node, awaited by the others."""

from __future__ import annotations

import asyncio

from dynctl.errors import DynctlError
from dynctl.plan.values import Plan
from dynctl.runtime.elsewhere import Elsewhere
from dynctl.runtime.neighbours import Neighbours
from dynctl.runtime.outcome import flat
from dynctl.runtime.pairs import PairsProver
from dynctl.runtime.proving import Proving
from dynctl.runtime.serving import Serving
from dynctl.runtime.waits import first_of
from dynctl.store.log import EventLog

AGAIN_S = 1.0
LONGEST_AGAIN_S = 30.0


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

    async def keep(self) -> None:
        """Proves again whatever comes back on another node, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for process in self._neighbours.elsewhere.values():
                group.create_task(self._keep(process))

    async def _keep(self, process: Elsewhere) -> None:
        wait_s = AGAIN_S
        while True:
            await self._neighbours.until(lambda: process.id in self._serving and process.proven != process.known)
            incarnation = process.known
            try:
                if await first_of(self.again(process.id), self._serving.go(process.id)) == 0:
                    process.proven, process.proving, wait_s = incarnation, False, AGAIN_S
                    self._events.add("process.state", "ready again", process=process.id, state="ready")
                continue
            except (DynctlError, ExceptionGroup) as error:
                self._events.add("error", f"{process.id}: {flat(error)}", process=process.id)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_AGAIN_S)


class MemberProver:
    """Waits for the word of the frontend's node."""

    def __init__(self, plan: Plan, serving: Serving, neighbours: Neighbours) -> None:
        self._plan, self._serving, self._neighbours = plan, serving, neighbours

    async def all(self) -> None:
        """The deployment is ready, this node's processes with it."""
        for process in self._plan.own():
            await self._serving.come(process.id)
        await self._neighbours.until(self._all_proven)

    async def again(self, process: str) -> None:
        """That process is proven as it runs now."""
        await self._neighbours.until(lambda: self._proven(process))

    def _all_proven(self) -> bool:
        word = self._neighbours.word()
        return word is not None and word.ready and all(self._proven(process.id) for process in self._plan.own())

    def _proven(self, process: str) -> bool:
        word, mark = self._neighbours.word(), self._neighbours.incarnation(process)
        return word is not None and mark is not None and word.proven.get(process) == mark
