"""Another count of workers in a ready run: who comes is proven before it serves, who goes is drained before it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import msgspec
import psutil

from dynctl.counted import counted
from dynctl.engines.spec import ProcessSpec
from dynctl.errors import DynctlError, RunStateError, RuntimeFailure
from dynctl.plan.rescale import moved
from dynctl.plan.values import Plan
from dynctl.runtime import cgroups, nothing_left, shared_memory, spawned
from dynctl.runtime.bringup import BringUp
from dynctl.runtime.managed import Managed
from dynctl.runtime.messages import Scale
from dynctl.runtime.observer import Observer
from dynctl.runtime.picture import Picture
from dynctl.runtime.proving import Proving
from dynctl.runtime.serving import Serving
from dynctl.runtime.shared_memory import Segment
from dynctl.store.log import EventLog
from dynctl.store.run import RunRecord, RunStore

LOOK_S = 0.05
ENDING_LOOK_S = 0.2
STOP_PATIENCE_S = 60.0
OVER = frozenset({"failed", "stopped"})


class Run(Protocol):
    """What scaling needs of the supervisor."""

    plan: Plan
    processes: dict[str, Managed]
    bringup: BringUp
    observer: Observer
    picture: Picture
    proving: Proving
    serving: Serving
    store: RunStore
    record: RunRecord
    events: EventLog

    def refresh_state(self) -> None:
        """Recompute the run's state and tell the frontend."""


class Scaling:
    """One change of the run's plan. `idle`: returns when a worker has nothing in flight, or how much after a time."""

    def __init__(self, run: Run, idle: Callable[[Managed, float], Awaitable[int]]) -> None:
        self._run, self._idle = run, idle

    async def carry_out(self, asked: Scale) -> str:
        """What was done. RunStateError when it does not fit the run; RuntimeFailure when it did not work out."""
        before, after = ({process.id for process in plan.processes} for plan in (self._run.plan, asked.plan))
        joining, leaving = sorted(after - before), sorted(before - after)
        if (joining and leaving) or moved(self._run.plan, asked.plan):
            raise RunStateError(f"`{self._run.plan.name}` has changed meanwhile", fix="try again")
        began = time.monotonic()
        if joining:
            await self._bring_in(joining, asked)
            return f"{', '.join(joining)} joined, proven, in {time.monotonic() - began:.1f} s"
        self._refuse_last(leaving)
        await self._take_away(leaving, asked)
        return f"{', '.join(leaving)} left in {time.monotonic() - began:.1f} s"

    # up

    async def _bring_in(self, joining: Collection[str], asked: Scale) -> None:
        """The plan is kept first: whoever takes the run over then knows of all that may be alive."""
        run, before, topology = self._run, self._run.plan, self._run.store.topology().decode()
        run.store.keep_plan(asked.plan, asked.topology)
        self._follow(asked.plan, joining)
        for process in joining:
            self._say(process, "joins the run")
        coming = [run.processes[process] for process in joining]
        starts = [asyncio.create_task(self._start(process)) for process in coming]
        try:
            await asyncio.gather(*starts)
        except DynctlError:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await self._undo(coming, before, topology)
            raise
        self._follow(asked.plan)

    async def _undo(self, coming: Collection[Managed], before: Plan, topology: str) -> None:
        try:
            await self._end(coming)
        except RuntimeFailure as error:  # the failed start is the error to be told
            self._run.events.add("error", error.cause, why="; ".join(error.why))
        self._follow(before)
        self._run.store.keep_plan(before, topology)

    async def _start(self, process: Managed) -> None:
        """Returns when it serves, proven. As in `up` a start that fails is not tried again: it never served."""
        keeper = self._run.bringup.join(process)
        rules = process.rules
        process.rules = msgspec.structs.replace(rules, restart=msgspec.structs.replace(rules.restart, max=0))
        process.keep_log()  # an earlier worker may have had this id
        keeper.feed("start")
        while process.state != "ready":
            if process.state in OVER:
                raise RuntimeFailure(
                    f"{process.id} could not be started: the run is as it was",
                    where=f"process {process.id}",
                    why=process.life.reason,
                    fix=f"its log is in {self._run.store.log_path(process.id)}",
                    tail=process.last_lines(),
                )
            await asyncio.sleep(LOOK_S)
        process.rules = rules

    # down

    def _refuse_last(self, leaving: Collection[str]) -> None:
        for role in {self._run.processes[process].spec.role for process in leaving}:
            members = [process for process in self._run.processes.values() if process.spec.role == role]
            ready = [process.id for process in members if process.state == "ready"]
            stay = [process for process in members if process.id not in leaving]
            if ready and all(process in leaving for process in ready):
                raise RunStateError(
                    f"no {role} worker would be left that is ready: {', '.join(ready)} would go",
                    why=", ".join(f"{process.id} is {process.state}" for process in stay),
                    fix="see to these first: `dynctl restart`, `dynctl drain --undo`",
                )

    async def _take_away(self, leaving: Collection[str], asked: Scale) -> None:
        """The plan is kept last: until then whoever takes the run over finds them in it."""
        run = self._run
        going = [run.processes[process] for process in leaving]
        run.picture.follow(run.plan, leaving)
        for process in going:
            self._say(process.id, "leaves the run")
            run.bringup.keepers[process.id].feed("drain", "taken out: it leaves the run", why="scaled down")
        try:
            left = await asyncio.gather(*(self._idle(process, asked.drain_s) for process in going))
            for process, count in zip(going, left, strict=True):
                if count:
                    self._say(process.id, f"{counted(count, 'request')} in flight cut off after {asked.drain_s:g} s")
            await self._end(going)
        except DynctlError:
            run.picture.follow(run.plan)  # what can't be ended is still the run's
            run.refresh_state()
            raise
        self._follow(asked.plan)
        run.store.keep_plan(asked.plan, asked.topology)

    async def _end(self, going: Collection[Managed]) -> None:
        """Ends them, and proves that nothing of them is left. RuntimeFailure when something is."""
        seen: dict[int, psutil.Process] = {}
        made: set[Segment] = set()
        starts = spawned.read(self._run.store.dir, self._run.record.run_id)

        def look() -> None:
            members = [member for process in going for member in process.processes()]
            seen.update((member.pid, member) for member in members)
            made.update(shared_memory.made_by(members, starts))

        await asyncio.to_thread(look)
        groups = [group / process.id for group in cgroups.of_run(self._run.record.run_id, seen) for process in going]
        ports = {port for process in going for port in process.spec.ports.values()}
        stops = asyncio.gather(*(self._stop(process) for process in going))
        while not stops.done():  # an engine goes on making shared memory as it ends
            await asyncio.wait([stops], timeout=ENDING_LOOK_S)
            await asyncio.to_thread(look)
        await stops
        held = await asyncio.to_thread(nothing_left.remains, seen, ports, made, groups)
        alive = [f"{process.id}: {process.life.reason}" for process in going if process.state == "failed"]
        if alive or held:
            raise RuntimeFailure("something of a worker that was to go is left", why=(*alive, *held))

    async def _stop(self, process: Managed) -> None:
        self._run.bringup.keepers[process.id].feed("stop", why="it leaves the run")
        deadline = time.monotonic() + process.spec.stop_grace_s + STOP_PATIENCE_S
        while process.state not in OVER:
            if time.monotonic() > deadline:
                raise RuntimeFailure(f"{process.id} has not ended", why=f"it is {process.state}")
            await asyncio.sleep(LOOK_S)

    # both

    def _follow(self, plan: Plan, passing: Collection[str] = ()) -> None:
        """From now on this is the run's plan. `passing`: who just comes or goes."""
        run = self._run
        named = {spec.id: spec for spec in plan.processes}
        for process_id in run.processes.keys() - named.keys():
            run.bringup.leave(process_id)
        known = dict(run.processes)
        run.processes.clear()  # and filled again in plan order: others hold this very mapping
        for process_id, spec in named.items():
            run.processes[process_id] = known.get(process_id) or self._managed(spec)
        run.plan = plan
        run.serving.follow(named)
        run.observer.follow(plan)
        run.proving.follow(plan)
        run.picture.follow(plan, passing)
        run.refresh_state()

    def _managed(self, spec: ProcessSpec) -> Managed:
        run = self._run
        return Managed(spec, run.store, run.record.run_id, run.events)

    def _say(self, process: str, message: str) -> None:
        self._run.events.add("operation", message, process=process, who="operator")
