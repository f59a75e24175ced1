"""Takes over a run whose supervisor is gone: what serves is watched on as it is, what does not is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Protocol

import psutil

from dynctl.environ import PROCESS_VARIABLE, RUN_ID_VARIABLE
from dynctl.runtime import spawned
from dynctl.runtime.bringup import BringUp
from dynctl.runtime.managed import Managed
from dynctl.runtime.neighbours import Neighbours
from dynctl.runtime.ownership import environment
from dynctl.runtime.picture import Picture
from dynctl.runtime.proving import Proving
from dynctl.runtime.serving import Serving
from dynctl.runtime.spans import Spans
from dynctl.store.log import EventLog
from dynctl.store.run import RunRecord, RunStore
from dynctl.telemetry.status import ProcessState

SERVED: tuple[ProcessState | None, ...] = ("ready", "unhealthy", "draining", None)
"""Last known states of a process whose gates were open and whose pairs were proven; None: events were lost."""


class Run(Protocol):
    """What adoption needs of the supervisor."""

    store: RunStore
    record: RunRecord
    processes: dict[str, Managed]
    serving: Serving
    proving: Proving
    picture: Picture
    bringup: BringUp
    spans: Spans
    neighbours: Neighbours | None
    events: EventLog


class Adoption:
    """Done before the control socket is served: the frontend keeps its last table until every process was checked."""

    def __init__(self, run: Run) -> None:
        self._run = run
        past = run.store.events()
        self._last = {event.process: event.state for event in past if event.kind == "process.state"}
        states = [event.state for event in past if event.kind == "run.state"]
        self._was_ending = bool(states) and states[-1] == "stopping"
        self._past = past
        run.proving.recall(past)

    async def take_over(self) -> None:
        """Each process is adopted, or found dead, and checked. What it takes to mend them begins here, too."""
        run = self._run
        run.spans.recall(spawned.epochs(run.store.dir, run.record.run_id))
        starts = spawned.starts(run.store.dir, run.record.run_id)
        found = {process.id: self._take(process, starts.get(process.id, 1) - 1) for process in run.processes.values()}
        run.picture.was_ready = True
        adopted = [process for process, here in found.items() if here]
        run.events.add("operation", f"adopted: {', '.join(adopted) or 'nothing'}", who="operator")
        for process in run.processes.values():
            self._go_on(process, found[process.id])
        if run.neighbours:  # not before it can be told what is here: the parts elsewhere follow what is said first
            await run.neighbours.rejoin(self._past)
        served = [process for process in run.processes.values() if process.state == "ready"]
        await asyncio.gather(*(run.bringup.keepers[process.id].look() for process in served))
        for process in served:
            process.check_binding(await asyncio.to_thread(process.views))

    def _take(self, process: Managed, restarts: int) -> bool:
        """Whether it runs. What serves counts as ready from here on."""
        run = self._run
        process.remember(restarts)
        one = running(run.store.dir, run.record.run_id, process.id)
        try:
            if one is None:
                return False
            process.adopt(one.pid, one.start_ticks)
        except ProcessLookupError:
            return False
        if self._last.get(process.id) in SERVED:
            process.move("adopt", f"adopted, pid {one.pid}")
            process.move("proven", "serves on")
            run.serving.add(process.id)
        return True

    def _go_on(self, process: Managed, alive: bool) -> None:
        keeper, last = self._run.bringup.keepers[process.id], self._last.get(process.id)
        if alive and process.state == "ready":
            if last == "draining":
                keeper.feed("drain", "stays taken out")
        elif alive:  # it was being started, or ended
            keeper.feed("adopt", f"adopted, pid {process.pid}")
        elif last == "stopped" and not self._was_ending:
            keeper.feed("stop", "stays out: it ended after an operator had taken it out")
        else:
            process.move("adopt", "not there any more")
            keeper.feed("exit", "ended while nobody supervised it (exit status unknown)", why="exit status unknown")


def running(directory: Path, run_id: str, process_id: str) -> spawned.Spawned | None:
    """The process that runs now: by its note, or where that was lost by its environment. It must carry both marks."""
    marks = {RUN_ID_VARIABLE: run_id, PROCESS_VARIABLE: process_id}
    noted = spawned.latest(directory, run_id).get(process_id)
    for pid in [noted.pid] if noted else psutil.pids():
        with contextlib.suppress(OSError):
            if marks.items() <= environment(pid).items() and os.getsid(pid) == pid:
                ticks = spawned.start_ticks(pid) or 0
                one = spawned.Spawned(run_id=run_id, id=process_id, pid=pid, start_ticks=ticks, session=pid)
                if spawned.is_alive(one):
                    return one
    return None
