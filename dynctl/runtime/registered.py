"""Dynamo's planes while a run goes on: what the dead have registered, and servers that are not the run's own.

A worker that was killed stays registered until its lease runs out, and the router goes on choosing it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Protocol

import httpx

from dynctl.plan.values import Plan
from dynctl.preflight.planes import absent
from dynctl.proof.dynamo import worker_id
from dynctl.runtime.managed import Managed
from dynctl.runtime.picture import Picture
from dynctl.store.log import EventLog
from dynctl.store.registrations import EtcdError, Planes, Registry, note_lease, planes_of

SERVERS_S = 1.0


class Run(Protocol):
    """What is needed of the supervisor."""

    plan: Plan
    processes: dict[str, Managed]
    picture: Picture
    events: EventLog
    http: httpx.AsyncClient


class Registered:
    """`look` now and then."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._planes = planes_of(run.plan)
        self._leases: dict[int, int] = {}
        self._dead: set[int] = set()
        self._next = 0.0

    async def look(self) -> None:
        """One round: who lives is learned, what the dead have registered is removed, silent servers are said."""
        if self._planes is None:
            return
        if (now := time.monotonic()) >= self._next:
            self._next = now + SERVERS_S
            await self._say_absent(self._planes)
        await self._learn()
        endpoints = self._run.plan.process("frontend").env.get("ETCD_ENDPOINTS")
        if self._dead and endpoints and not self._run.picture.absent:
            with contextlib.suppress(EtcdError):  # tried again at the next look
                registry, dead = Registry(endpoints.split(",")), set(self._dead)
                await asyncio.to_thread(registry.remove_of, self._planes.namespace, dead)
                self._dead -= dead

    async def _say_absent(self, planes: Planes) -> None:
        run = self._run
        found = await asyncio.to_thread(lambda: tuple(absent(planes)))
        before, run.picture.absent = run.picture.absent, found
        for trouble in found:
            if trouble not in before:
                run.events.add("warning", trouble)
        if before and not found:
            run.events.add("warning", "the servers of Dynamo's planes answer again")

    async def _learn(self) -> None:
        """The leases of live workers, by their pids; those of pids that are gone are dead."""
        run = self._run
        named = [run.processes[spec.id] for spec in run.plan.workers() if spec.id in run.processes]
        alive = {process.pid: process for process in named if process.pid}
        self._dead |= {self._leases.pop(pid) for pid in self._leases.keys() - alive.keys()}
        for pid, process in alive.items():
            if pid not in self._leases and process.state in {"loading", "ready"}:
                probes = process.spec.probes
                with contextlib.suppress(httpx.HTTPError):
                    answer = await run.http.get(f"{probes.url}{probes.metrics}")
                    if (number := worker_id(answer.text)) is not None and process.pid == pid:
                        self._leases[pid] = number
                        note_lease(run.plan, number)
