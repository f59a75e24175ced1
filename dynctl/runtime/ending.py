"""Ends a run: the frontend drains, then decode, then prefill, under one deadline; then proof that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from dynctl.errors import RunStateError
from dynctl.runtime import cgroups, ipc, nothing_left, ownership, segments, shared_memory, spawned
from dynctl.runtime.managed import Managed
from dynctl.runtime.shared_memory import Segment
from dynctl.runtime.spawned import Spawned
from dynctl.store import registrations
from dynctl.store.run import RunRecord, RunStore

KILL_S = 10.0
SWEEP_GRACE_S = 5.0
SWEEP_POLL_S = 0.1
LOOK_S = 0.2


class Ending:
    """The orderly end of all processes of a run. `hurry` cuts every wait short."""

    def __init__(self, processes: Iterable[Managed], store: RunStore, record: RunRecord, grace_s: float) -> None:
        self._processes, self._store, self._run_id = list(processes), store, record.run_id
        self._runtime_dir = Path(record.socket).parent  # of who started the run: another one may have adopted it
        self._deadline = time.monotonic() + grace_s
        self._hurry = asyncio.Event()
        self._seen: dict[int, psutil.Process] = {}
        self._starts: list[Spawned] = []
        self._segments: set[Segment] = set()
        self._groups: list[Path] = []

    def hurry(self) -> None:
        """Kill at once."""
        self._hurry.set()

    async def run(self) -> list[str]:
        """Ends everything; descriptions of processes that survived SIGKILL are returned."""
        for process in self._processes:
            process.move("stop", "stopping")
        await asyncio.to_thread(self._remember)
        await self._end(["frontend"])
        if self._running(["frontend"]):
            await self._end(["decode"])
        # with the frontend gone nothing is in flight between the two: they may go side by side
        await self._end(["decode", "worker", "prefill"])
        await self._end(["control"])
        survivors = await asyncio.to_thread(self._sweep)
        for process in self._processes:
            process.move("gone", "ended")
        return survivors

    def _running(self, roles: list[str]) -> list[Managed]:
        return [process for role in roles for process in self._processes if process.spec.role == role and process.pid]

    async def _end(self, roles: list[str]) -> None:
        """SIGTERM to the servers alone: each ends its own children in order; what they leave is swept."""
        members = self._running(roles)
        for process in members:
            ownership.signal_all(process.server(), signal.SIGTERM)
        await self._wait(members)

    async def _wait(self, members: list[Managed]) -> None:
        waits = [asyncio.ensure_future(member.exited.wait()) for member in members]
        if not waits:
            return
        hurried = asyncio.ensure_future(self._hurry.wait())
        together = asyncio.ensure_future(asyncio.wait(waits))
        first = asyncio.FIRST_COMPLETED
        while (left_s := self._deadline - time.monotonic()) > 0:
            done, _ = await asyncio.wait({together, hurried}, timeout=min(left_s, LOOK_S), return_when=first)
            if done:
                break
            await asyncio.to_thread(lambda: self._look(self._left()))
        for task in (*waits, hurried, together):
            task.cancel()

    def _remember(self) -> None:
        """The tree as it is before any signal: afterwards children may have been reparented."""
        for process in self._processes:
            for member in process.processes():
                self._seen[member.pid] = member
        self._starts = spawned.read(self._store.dir, self._run_id)
        self._groups = ownership.groups(self._store.dir, self._run_id, self._seen)
        self._look(self._seen.values())

    def _look(self, processes: Iterable[psutil.Process]) -> None:
        """Notes what they have mapped of shared memory: an engine that was starting goes on making it as it ends."""
        self._segments |= shared_memory.made_by(processes, self._starts)

    def _sweep(self) -> list[str]:
        """Ends what the servers left: helpers that clean up after them get a moment to go by themselves. Then proof."""
        deadline = time.monotonic() + (0.0 if self._hurry.is_set() else SWEEP_GRACE_S)
        while left := self._left():
            self._look(left)
            if time.monotonic() > deadline:
                break
            time.sleep(SWEEP_POLL_S)
        self._segments |= segments.read(self._store.dir, self._run_id)
        if left:
            self._look(ownership.stop_all(self._left))
            for group in self._groups:
                cgroups.kill(group)
        survivors = ownership.end_all(self._left, grace_s=0.0, kill_s=KILL_S)
        if survivors:
            return [ownership.describe(process) for process in survivors]
        ipc.remove(self._run_id, [self._runtime_dir])
        with contextlib.suppress(RunStateError):
            registrations.clear(self._store.plan())  # what was killed has not removed its own
        ports = {port for process in self._processes for port in process.spec.ports.values()}
        return nothing_left.remains(self._seen, ports, self._segments, self._groups)

    def _left(self) -> list[psutil.Process]:
        """By environment, by control groups, and all descendants: orphans of the run become this process's children."""
        marked = {process.pid: process for process in ownership.processes_of(self._run_id)}
        children = {process.pid: process for process in ownership.tree(os.getpid())[1:]}
        grouped = {process.pid: process for process in ownership.in_groups(self._groups)}
        return ownership.alive({**self._seen, **marked, **grouped, **children}.values())
