"""Brings a run up gate by gate and keeps it up: a worker that dies before ready ends the run, later it is restarted."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import httpx

from dynctl.errors import DynctlError, ReadyTimeout, RuntimeFailure
from dynctl.plan.values import Plan
from dynctl.runtime.gates import StallWatch, await_health, await_model
from dynctl.runtime.lifecycle import backoff_s
from dynctl.runtime.managed import Managed
from dynctl.runtime.pairs import Prover
from dynctl.runtime.serving import Serving
from dynctl.runtime.spawncheck import refuse_taken_ports
from dynctl.runtime.turns import Turns
from dynctl.runtime.waits import first_of
from dynctl.store.log import EventLog


class Run(Protocol):
    """What bring-up needs of the supervisor."""

    plan: Plan
    processes: dict[str, Managed]
    serving: Serving
    prover: Prover
    events: EventLog
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
        async with asyncio.TaskGroup() as group:
            for process in self._run.processes.values():
                group.create_task(self._keep(process))

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
        for earlier in process.spec.after:
            if earlier not in self._serving:
                process.wait_for(earlier)
            await self._serving.come(earlier)
        process.start()
        await self._await_own_gates(process)

    async def _await_own_gates(self, process: Managed) -> None:
        run = self._run
        await await_health(process, run.http)
        run.events.add("gate", "healthy", process=process.id)
        process.hold_cores()
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
        stalled = StallWatch(process, self._plan.ready.stall_s).run()
        served = self._serving.come(process.id)
        first = await first_of(ended, stalled, served)
        if first != 0:
            await process.exited.wait()
        error = died(process)  # first: a process that has crashed is in no phase
        process.move("exit", process.exit_text())
        raise error

    async def _keep(self, process: Managed) -> None:
        rule, attempt = process.spec.restart, 0
        while True:
            await process.exited.wait()
            ready_s = time.time() - process.since if process.state == "ready" else 0.0
            process.move("exit", f"died ({process.exit_text()})", why=_cause_text(process))
            self._serving.discard(process.id)
            self._run.refresh_state()
            attempt = 1 if ready_s > rule.cap_s else attempt + 1
            if attempt > rule.max:
                process.move("exhausted", f"not restarted: {rule.max} restarts did not help", why=_cause_text(process))
                self._run.refresh_state()
                await asyncio.Event().wait()
            wait_s = backoff_s(attempt, first_s=rule.backoff_s, cap_s=rule.cap_s)
            process.move("wait", f"restart {attempt} of {rule.max} in {wait_s:g} s")
            await asyncio.sleep(wait_s)
            await self._restart(process)

    async def _restart(self, process: Managed) -> None:
        """One attempt: the same place, ports and proofs as at first. A failure leaves the process ended."""
        await asyncio.to_thread(process.clear_leftovers)
        process.restarts += 1
        try:
            async with self._turns.taken(process):
                process.start()
                deadline = asyncio.get_running_loop().time() + self._plan.ready.timeout_s
                stalled = StallWatch(process, self._plan.ready.stall_s).run()
                async with asyncio.timeout_at(deadline):
                    if await first_of(self._await_own_gates(process), process.exited.wait(), stalled) != 0:
                        return
            async with asyncio.timeout_at(deadline):
                if await first_of(self._run.prover.again(process.id), process.exited.wait()) != 0:
                    return
        except (DynctlError, ExceptionGroup, TimeoutError) as error:
            cause = _flat(error)
            self._run.events.add("error", f"{process.id}: {cause}", process=process.id)
            await asyncio.to_thread(process.clear_leftovers)
            return
        process.move("proven", "ready again")
        self._run.refresh_state()

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


def _cause_text(process: Managed) -> str | None:
    process.tail.poll()
    return process.tail.cause.cause if process.tail.cause else None


def _flat(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
