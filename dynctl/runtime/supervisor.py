"""The supervisor: one process per run that starts the plan, opens its gates, watches it, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable

import httpx
import msgspec

from dynctl.errors import DynctlError, ReadyTimeout
from dynctl.frontend.messages import Report, ToFrontend, WindowFigures, WorkerTable
from dynctl.http.pinned import trust
from dynctl.nodes.failed import Failed
from dynctl.runtime.adoption import Adoption
from dynctl.runtime.beat import next_beat
from dynctl.runtime.bringup import BringUp
from dynctl.runtime.control import Control
from dynctl.runtime.elsewhere import merged
from dynctl.runtime.ending import Ending
from dynctl.runtime.errands import Errands
from dynctl.runtime.leaving import drains
from dynctl.runtime.lifecycle import run_state
from dynctl.runtime.managed import Managed
from dynctl.runtime.memory import Memory
from dynctl.runtime.messages import Done, Gone, Happened, Operation, Ready, StatusNow
from dynctl.runtime.neighbours import Neighbours
from dynctl.runtime.observer import Observer
from dynctl.runtime.operations import Operations
from dynctl.runtime.outcome import outcome, tend
from dynctl.runtime.pairs import PairsProver, Prover
from dynctl.runtime.picture import Picture
from dynctl.runtime.provers import HeadProver, MemberProver
from dynctl.runtime.proving import Proving
from dynctl.runtime.reading import Reading
from dynctl.runtime.reaper import reap_orphans
from dynctl.runtime.rotating import Rotating
from dynctl.runtime.routed import Routed
from dynctl.runtime.secret import engine_key, guarded
from dynctl.runtime.segments import Noting
from dynctl.runtime.serving import Serving
from dynctl.runtime.spans import Spans
from dynctl.runtime.upkeep import Upkeep
from dynctl.runtime.waits import first_of
from dynctl.store.event import Event
from dynctl.store.log import EventLog
from dynctl.store.run import RunStore, write_private
from dynctl.telemetry.status import RunState, RunStatus

STATUS_S = 0.5
FAILURE_GRACE_S = 10.0
STOP_GRACE_S = 30.0


class Supervisor:
    """Owns every process of the run. Viewers only look on; the frontend is told of worker changes at once."""

    def __init__(self, store: RunStore) -> None:
        self.store, self.plan, self.record = store, store.whole_plan(), store.record()
        self.control = Control(self)
        self.events = EventLog(store.dir / "events.jsonl", time.time)
        self.events.listeners.append(lambda event: self.control.tell_viewers(Happened(event=event)))
        specs, secret, key = self.plan.own(), store.secret() if len(self.plan.nodes) > 1 else None, None
        if secret:
            key = engine_key(secret, self.plan.name)
            specs = guarded(specs, key, store)
        self.processes = {spec.id: Managed(spec, store, self.record.run_id, self.events) for spec in specs}
        self.memory = Memory(self.processes)
        self.serving = Serving(spec.id for spec in self.plan.processes)
        auth = {"authorization": f"Bearer {key}"} if key else None
        self.http = httpx.AsyncClient(trust_env=False, timeout=5, headers=auth, verify=trust(self.plan.frontend_cert))
        self.observer = Observer(self.plan)
        self.spans = Spans(self.plan, self.processes)
        self.neighbours = Neighbours(self, secret) if secret else None
        if self.neighbours:
            self.spans.meet(self.neighbours.exchange, self.neighbours.until)
        self.every = every = merged(self.plan, self.processes, self.neighbours.elsewhere if self.neighbours else {})
        self.errands = Errands(self.plan, self.neighbours)
        self.proving = Proving(self.plan, store.token(), every, self.events, self.observer)
        self.picture = Picture(self.plan, self.record, every, self.proving, self.observer, self.neighbours)
        self.prover = self._prover()
        self.bringup = BringUp(self)
        self.operations = Operations(self)
        self.upkeep = Upkeep(self)
        if self.neighbours:
            self.neighbours.exchange.run_errand = self.operations.errand
        self._stop, self._kill = asyncio.Event(), asyncio.Event()
        self._grace_s = STOP_GRACE_S
        self._table: WorkerTable | None = None
        self._state: RunState = "starting"

    async def run(self, listener: socket.socket, *, adopting: bool = False) -> int:
        """The whole run, from spawning, or `adopting`, to the last process gone; the exit code."""
        self._handle_signals()
        if adopting:
            await Adoption(self).take_over()
        await self.control.listen(listener)
        reading = Reading(self.processes, self.is_ready)
        noting = Noting(self.store.dir, self.record.run_id, self.processes)
        helpers = (reading, Rotating(self.store, self.events), noting, Routed(self), self.upkeep)
        housekeeping = [asyncio.create_task(tend(work)) for work in (self._show, *(helper.run for helper in helpers))]
        serving, stopping = asyncio.create_task(self._serve()), asyncio.create_task(self._stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self.picture.failure = await outcome(serving)
        survivors = await self._end()
        for task in (*housekeeping, stopping):
            task.cancel()
        return await self._farewell(survivors)

    @property
    def run_state(self) -> RunState:
        """The run's state as last computed."""
        return self._state

    @property
    def stopping(self) -> bool:
        """Whether this node's part ends."""
        return self._stop.is_set()

    # what the control socket asks

    def status(self) -> RunStatus:
        """The status document."""
        self.memory.look()
        return self.picture.status(self._state)

    def is_ready(self) -> bool:
        """Whether every gate was open once."""
        return self.picture.was_ready

    def past_events(self) -> list[Event]:
        """Events kept in memory, oldest first."""
        return list(self.events.recent)

    def starter_left(self) -> None:
        """Before ready, losing the client that started the run ends it; afterwards it goes on."""
        if not self.picture.was_ready and not self._stop.is_set():
            self.events.add("warning", "the client that started the run went away before it was ready")
            self.ask_down(FAILURE_GRACE_S, now=False)

    def ask_down(self, grace_s: float, *, now: bool, everywhere: bool = False) -> None:
        """Begins to end the run; asked again, or with `now`, kills. `everywhere`: asks the other nodes to end, too."""
        if everywhere and self.neighbours:
            self.neighbours.parting.ask_all(grace_s, now=now)
        if now or self._stop.is_set():
            self._kill.set()
        self._grace_s = 0.0 if now else grace_s
        self._stop.set()

    def operate(self, asked: Operation, answer: Callable[[Done], None]) -> None:
        """Begins what an operator asked for."""
        self.operations.begin(asked, answer)

    def frontend_hello(self) -> ToFrontend:
        """The worker table for a frontend that just connected."""
        return self.picture.table(self.serving)

    def frontend_reported(self, report: Report) -> None:
        """Records users' requests, and a change of what the frontend says of its health."""
        before = self.observer.frontend().health
        if report.leaving and not self.stopping:
            drains(self.bringup.keepers["frontend"], STOP_GRACE_S)
        for record in self.observer.take(report):
            if self.control.watched:
                # request events go to viewers that asked; they are too many to be kept
                event = Event(seq=0, at=record.at, kind="request", message=record.id, data=msgspec.to_builtins(record))
                self.control.tell_viewers(Happened(event=event))
        if self.picture.was_ready and report.health != before:
            self.events.add("health", report.reason or f"frontend is {report.health}", state=report.health)

    # what bring-up asks

    def publish(self) -> None:
        """Tells the frontend of the workers as they are now, if that changed; at the end it drains by what it knows."""
        table = self.picture.table(self.serving)
        if table != self._table and not (self._stop.is_set() and self._table):
            self._table = table
            self.control.tell_frontends(table)

    def refresh_state(self) -> None:
        """Recomputes the run's state, records a change, and pushes the worker table."""
        state = self.picture.judged(
            run_state(self.picture.states(), was_ready=self.picture.was_ready, stopping=self._stop.is_set())
        )
        if state != self._state and state != "stopped":
            self._state = state
            self.events.add(
                "run.state", f"{self.plan.name} is {state}", state=state, why=self.picture.reason(self._state)
            )
        self.publish()

    def _prover(self) -> Prover:
        if not self.neighbours:
            return PairsProver(self.plan, self.proving, self.serving)
        if self.neighbours.head:
            return HeadProver(self.plan, self.proving, self.serving, self.neighbours, self.events)
        return MemberProver(self.plan, self.serving, self.neighbours)

    async def _bring_up(self) -> None:
        if not self.neighbours:
            return await self.bringup.run()
        await self.neighbours.exchange.start()
        try:
            await first_of(self.bringup.run(), self.neighbours.trouble())
        except ReadyTimeout as error:
            raise self.neighbours.explain(error) from error

    async def _keep(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.bringup.keep())
            if isinstance(self.prover, HeadProver):
                group.create_task(self.prover.keep())

    async def _serve(self) -> None:
        if not self.picture.was_ready:  # else it was adopted
            self.events.add("run.state", f"starting {self.plan.name}", state="starting")
            if self.plan.preflight:
                self.events.add("gate", self.plan.preflight)
            await self._bring_up()
            await self.observer.scrape(self.http)  # what comes before any user's request is the window's beginning
            self.picture.was_ready = True
            self.upkeep.look()  # marks it
            for process in self.processes.values():
                process.move("proven", "ready")
        self.refresh_state()
        self.control.tell_viewers(StatusNow(status=self.status()))
        self.control.tell_viewers(Ready())
        await self._keep()

    async def _end(self) -> list[str]:
        self._stop.set()
        await self.operations.close()
        self._state = "stopping"
        self.events.add(
            "run.state", f"stopping {self.plan.name}", state="stopping", why=self.picture.reason(self._state)
        )
        self.publish()
        grace_s = FAILURE_GRACE_S if self.picture.failure else self._grace_s
        ending = Ending(self.processes.values(), self.store, self.record, grace_s)
        if self.neighbours:
            self.neighbours.parting.begin()
            await first_of(self.neighbours.parting.drained(grace_s), self._kill.wait())
        hurried = asyncio.create_task(self._kill.wait())
        hurried.add_done_callback(lambda task: None if task.cancelled() else ending.hurry())
        survivors = await ending.run()
        hurried.cancel()
        return survivors

    async def _farewell(self, survivors: list[str]) -> int:
        self._state = "failed" if self.picture.failure or survivors else "stopped"
        why = f"still alive: {', '.join(survivors)}" if survivors else self.picture.reason(self._state)
        open_ends: tuple[str, ...] = ()
        if self.neighbours:
            open_ends = await self.neighbours.parting.last_words(survivors, self._grace_s)
        self.events.add("run.state", f"{self.plan.name} is {self._state}", state=self._state, why=why)
        final = self.status()
        with contextlib.suppress(DynctlError):  # a full disk costs the record, not the last word to the viewers
            write_private(self.store.dir / "status.json", msgspec.json.encode(final))
        self.control.tell_viewers(StatusNow(status=final))
        if self.picture.failure:
            self.control.tell_viewers(Failed.of(self.picture.failure))
        self.control.tell_viewers(Gone(survivors=tuple(survivors), open_ends=open_ends))
        if self.neighbours:
            if self.picture.failure and not self.picture.was_ready:
                await self.neighbours.parting.linger()
            await self.neighbours.exchange.close()
        await self.control.flush()
        self.control.close()
        if not survivors:
            self.store.ended()
        await self.http.aclose()
        self.events.close()
        return self.picture.failure.exit_code if self.picture.failure else 1 if survivors else 0

    # housekeeping

    async def _show(self) -> None:
        while True:
            await next_beat(STATUS_S)
            self.refresh_state()
            if self.neighbours:
                self.memory.look()  # the other nodes are told of it
            if self.picture.was_ready and (figures := await self.observer.look(self.http)):
                self.control.tell_frontends(WindowFigures(figures=figures))
            if self.control.watched:
                self.control.tell_viewers(StatusNow(status=self.status()))

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self.ask_down(STOP_GRACE_S, now=False))
        loop.add_signal_handler(signal.SIGCHLD, lambda: reap_orphans(self._pids()))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _pids(self) -> set[int]:
        return {process.pid for process in self.processes.values() if process.pid}
