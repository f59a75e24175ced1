"""Brings a run up gate by gate and keeps it up: a worker that dies before ready ends the run, later it is restarted."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from typing import Protocol

import httpx

from dynctl.errors import ReadyTimeout, RuntimeFailure
from dynctl.http.client import Client
from dynctl.http.pinned import pinned
from dynctl.plan.values import Plan
from dynctl.runtime.gates import StallWatch, await_health, await_model
from dynctl.runtime.health import HealthCheck
from dynctl.runtime.keeper import Keeper
from dynctl.runtime.lifecycle import Rules
from dynctl.runtime.managed import Managed
from dynctl.runtime.observer import Observer
from dynctl.runtime.pairs import Prover
from dynctl.runtime.picture import Picture
from dynctl.runtime.serving import Serving
from dynctl.runtime.spans import Spans
from dynctl.runtime.spawncheck import refuse_taken_ports
from dynctl.runtime.turns import Turns
from dynctl.runtime.waits import first_of
from dynctl.store.log import EventLog

PLANES_S = 0.5


class Run(Protocol):
    """What bring-up needs of the supervisor."""

    plan: Plan
    processes: dict[str, Managed]
    serving: Serving
    prover: Prover
    spans: Spans
    events: EventLog
    observer: Observer
    picture: Picture
    http: httpx.AsyncClient

    def refresh_state(self) -> None:
        """Recompute the run's state and tell the frontend."""


class BringUp:
    """The gates of this node's processes."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plan = run.plan
        self._serving = run.serving
        self._turns = Turns(run.plan.processes)
        self._client = Client(tls=pinned(run.plan.frontend_cert))
        self._group: asyncio.TaskGroup | None = None
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self.keepers = {process.id: self._keeper(process) for process in run.processes.values()}

    async def run(self) -> None:
        """Returns when every gate is open. Raises RuntimeFailure, TransportError or ReadyTimeout; ends nothing."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._plan.ready.timeout_s):
                await self._open_all()
        except TimeoutError:
            raise self._timeout(time.monotonic() - started) from None

    async def keep(self) -> None:
        """Watches a ready run until cancelled: restarts what dies, within each process's restart rule."""
        self._run.spans.keep(self.keepers)
        try:
            async with asyncio.TaskGroup() as self._group:
                for process_id, keeper in self.keepers.items():
                    self._keeping[process_id] = self._group.create_task(keeper.run())
        finally:
            await self._client.close()

    def join(self, process: Managed) -> Keeper:
        """Another process of a ready run: its keeper, which starts it when told to."""
        assert self._group  # noqa: S101 - the run is ready
        self._turns.add([process.spec])
        keeper = self.keepers[process.id] = self._keeper(process)
        self._keeping[process.id] = self._group.create_task(keeper.run())
        return keeper

    def leave(self, process_id: str) -> None:
        """That process has ended and is none of the run's any more."""
        self._turns.drop(process_id)
        del self.keepers[process_id]
        self._keeping.pop(process_id).cancel()

    def _keeper(self, process: Managed) -> Keeper:
        run, spec, rules = self._run, process.spec, self._plan.health
        process.rules = Rules(
            restart=spec.restart, stall_s=rules.stall_s, stop_grace_s=spec.stop_grace_s, follows=bool(spec.leader)
        )
        health = HealthCheck(process, self._client, rules, run.observer, run.spans.apart)
        return Keeper(process, self, run.events, health)

    async def _open_all(self) -> None:
        plan = self._plan
        processes = list(self._run.processes.values())
        refuse_taken_ports(plan)
        watch = [asyncio.create_task(self._watch_start(process)) for process in processes]
        work = asyncio.create_task(self._open_gates(processes))
        try:
            done, _ = await asyncio.wait({work, *watch}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await work
        finally:
            for task in (work, *watch):
                task.cancel()
            await asyncio.gather(work, *watch, return_exceptions=True)

    async def _open_gates(self, processes: list[Managed]) -> None:
        async with asyncio.TaskGroup() as group:
            for process in processes:
                group.create_task(self._open_own_gates(process))
            group.create_task(self._run.prover.all())

    async def _open_own_gates(self, process: Managed) -> None:
        for earlier in (*process.spec.needs, *process.spec.after):
            if earlier not in self._serving:
                process.wait_for(earlier)
            await self._serving.come(earlier)
        await self._run.spans.gather(process)
        self._run.spans.begin(process)
        process.start()
        await self._await_own_gates(process)

    async def _await_own_gates(self, process: Managed) -> None:
        run = self._run
        await await_health(process, run.http)
        await run.spans.joined(process)
        run.events.add("gate", "healthy", process=process.id)
        await asyncio.to_thread(process.hold_cores)
        process.check_binding(await asyncio.to_thread(process.views))
        if process.spec.probes.models:
            await await_model(process, run.http, self._plan.served_name)
            run.events.add("gate", "model listed", process=process.id)
        self._serving.add(process.id)
        run.refresh_state()

    async def _watch_start(self, process: Managed) -> None:
        """Raises when the process ends, or stops making progress before its own gates are open."""
        await process.started.wait()
        ended = process.exited.wait()
        stalled = self._stalled(process)
        served = self._serving.come(process.id)
        first = await first_of(ended, stalled, served)
        if first != 0:
            await process.exited.wait()
        error = died(process)  # first: a process that has crashed is in no phase
        process.move("exit", process.exit_text())
        raise error

    # what keeping a process asks

    async def open_again(self, process: Managed, *, execute: bool) -> None:
        """Starts it, if `execute`, in its turn, and returns once its own gates are open."""
        if execute:
            await self._await_planes(process)
            await self._run.spans.gather(process)
        async with self._turns.taken(process):
            if execute:
                self._run.spans.begin(process)
                self._run.observer.restarted(process.id)
                process.execute()
            stalled = self._stalled(process)
            async with asyncio.timeout(self._plan.ready.timeout_s):
                await first_of(self._await_own_gates(process), stalled)

    async def _await_planes(self, process: Managed) -> None:
        """What it would wait for in vain, or end without: its services, and servers that are not the run's own."""
        for service in process.spec.needs:
            if service not in self._serving:
                process.wait_for(service)
            await self._serving.come(service)
        while missing := self._run.picture.absent:
            process.wait_for(missing[0].removesuffix(" does not answer"))
            await asyncio.sleep(PLANES_S)

    async def prove_again(self, process: Managed) -> None:
        """Proves its pairs, and restarts first whom the engine needs restarted after it."""
        for other in self._run.processes.values() if process.restarts else ():
            if other.spec.restart.after_restart_of == process.spec.role and other is not process:
                self.keepers[other.id].feed("partner restarted", why=f"{process.id} was restarted")
        await self._run.prover.again(process.id)

    def changed(self, process: Managed) -> None:
        """Its state is another: the frontend hears of it at once."""
        if process.state in {"crashed", "stopping"}:
            self._serving.discard(process.id)
        self._run.spans.changed(process)
        self._run.refresh_state()

    def _stalled(self, process: Managed) -> Coroutine[None, None, object]:
        """Raises when it makes no progress; a part of a worker on several nodes waits for its leader."""
        spans, stall_s = self._run.spans, self._plan.ready.stall_s
        if process.spec.leader:
            return first_of(spans.left_behind(process), StallWatch(process, math.inf).run())
        return StallWatch(process, stall_s, lambda: spans.progress(process.id)).run()

    def _timeout(self, spent_s: float) -> ReadyTimeout:
        waiting = [p for p in self._run.processes.values() if p.id not in self._serving]
        slowest = waiting[0] if waiting else next(iter(self._run.processes.values()))
        phases = [f"{p.id}: {p.phase or p.state}" for p in waiting] or ["every process serves; pairs are being proven"]
        return ReadyTimeout(
            f"not ready after {spent_s:.0f} s",
            where="ready.timeout",
            why=phases,
            fix="raise ready.timeout if the model needs longer to load",
            tail=slowest.last_lines(),
        )


def died(process: Managed) -> RuntimeFailure:
    """A process that ended during start-up, with its likely cause and last lines."""
    tail = process.last_lines()
    cause = process.tail.cause
    return RuntimeFailure(
        f"{process.id} died while {process.phase or 'starting'} ({process.exit_text()})",
        where=f"process {process.id}",
        why=cause.cause if cause else None,
        fix=cause.fix if cause and cause.fix else f"`dynctl logs {process.id}` shows its whole log",
        tail=tail,
    )
