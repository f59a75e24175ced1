"""Ends a run: the frontend drains, then decode, then prefill, under one deadline; then proof that nothing is left."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterable

import psutil

from dynctl.runtime import ownership, shared_memory
from dynctl.runtime.managed import Managed

KILL_S = 10.0
SWEEP_GRACE_S = 5.0


class Ending:
    """The orderly end of all processes of a run. `hurry` cuts every wait short."""

    def __init__(self, processes: Iterable[Managed], run_id: str, grace_s: float) -> None:
        self._processes, self._run_id = list(processes), run_id
        self._deadline = time.monotonic() + grace_s
        self._hurry = asyncio.Event()
        self._seen: dict[int, psutil.Process] = {}
        self._segments: set[str] = set()

    def hurry(self) -> None:
        """Kill at once."""
        self._hurry.set()

    async def run(self) -> list[str]:
        """Ends everything; descriptions of processes that survived SIGKILL are returned."""
        for process in self._processes:
            process.move("stop", "stopping")
        self._remember()
        await self._end(["frontend"])
        if self._running(["frontend"]):
            await self._end(["decode"])
        # with the frontend gone nothing is in flight between the two: they may go side by side
        await self._end(["decode", "worker", "prefill"])
        survivors = await asyncio.to_thread(self._sweep)
        for process in self._processes:
            process.move("gone", "ended")
        return [ownership.describe(process) for process in survivors]

    def _running(self, roles: list[str]) -> list[Managed]:
        return [process for role in roles for process in self._processes if process.spec.role == role and process.pid]

    async def _end(self, roles: list[str]) -> None:
        """SIGTERM to the servers alone: each ends its own children in order; what they leave is swept."""
        members = self._running(roles)
        for process in members:
            ownership.signal_all(process.processes()[:1], signal.SIGTERM)
        await self._wait(members)

    async def _wait(self, members: list[Managed]) -> None:
        waits = [asyncio.ensure_future(member.exited.wait()) for member in members]
        if not waits:
            return
        hurried = asyncio.ensure_future(self._hurry.wait())
        together = asyncio.ensure_future(asyncio.wait(waits))
        left_s = max(0.0, self._deadline - time.monotonic())
        await asyncio.wait({together, hurried}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (*waits, hurried, together):
            task.cancel()

    def _remember(self) -> None:
        """The tree as it is before any signal: afterwards children may have been reparented."""
        for process in self._processes:
            for member in process.processes():
                self._seen[member.pid] = member
        self._segments = shared_memory.mapped_by(self._seen)

    def _sweep(self) -> list[psutil.Process]:
        """Ends what the servers left: helpers that clean up after them get a moment to go by themselves."""
        if not self._hurry.is_set():
            psutil.wait_procs(self._left(), timeout=SWEEP_GRACE_S)
        survivors = ownership.end_all(self._left, grace_s=0.0, kill_s=KILL_S)
        shared_memory.remove_unused(self._segments)
        return survivors

    def _left(self) -> list[psutil.Process]:
        marked = {process.pid: process for process in ownership.processes_of(self._run_id)}
        return ownership.alive({**self._seen, **marked}.values())
