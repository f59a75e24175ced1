"""One process under supervision: its state, its log, its exit."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import time
from collections.abc import Callable

import msgspec
import psutil

from dynctl.engines.spec import ProcessSpec
from dynctl.hardware.values import parse_cpu_list
from dynctl.nodes.parts import with_epoch
from dynctl.nodes.seen import LogSeen
from dynctl.runtime import ownership, procfs, segments, shared_memory, spawned
from dynctl.runtime.affinity import hold_to
from dynctl.runtime.binding import ProcessView, judge
from dynctl.runtime.lifecycle import Action, Life, LifeEvent, Rules, said, step
from dynctl.runtime.mempolicy import preferring
from dynctl.runtime.spawn import exit_text, spawn
from dynctl.runtime.tail import LogTail
from dynctl.store import rotation
from dynctl.store.log import EventLog
from dynctl.store.run import RunStore
from dynctl.telemetry.status import Bound, ProcessState, ProcessStatus

TAIL_LINES = 20


class Managed:
    """A planned process and what became of it. `exited` is set when the process that runs now has ended.

    It is a child that `execute` started, or one that `adopt` took over, whose exit status nobody can know.
    `on_exit` is called at the very moment of its end. `epoch`: which start of a worker on several nodes it belongs to;
    `progress`: rises as its start goes on.
    """

    def __init__(self, spec: ProcessSpec, store: RunStore, run_id: str, events: EventLog) -> None:
        self.spec, self._store, self._run_id, self._events = spec, store, run_id, events
        self.life = Life()
        self.rules = Rules(restart=spec.restart, stop_grace_s=spec.stop_grace_s)
        self.on_exit: Callable[[], None] = lambda: None
        self.since = time.time()
        self.phase: str | None = None
        self.phase_since = self.since
        self.rss_bytes: int | None = None
        self.epoch: str | None = None
        self.progress = 0
        self.bound: Bound | None = None
        self._unbound: str | None = None
        self.started = asyncio.Event()
        self.exited = asyncio.Event()
        self.returncode: int | None = None
        self._pid: int | None = None
        self.tail = self._new_tail()

    @property
    def id(self) -> str:
        """The process's id in the plan."""
        return self.spec.id

    @property
    def state(self) -> ProcessState:
        """The state of its life."""
        return self.life.state

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self.life.restarts

    @property
    def pid(self) -> int | None:
        """The pid while the process runs."""
        return None if self.exited.is_set() else self._pid

    def start(self) -> None:
        """Its first start. HostError if it can't be executed."""
        self.move("start")
        self.execute()

    def execute(self) -> None:
        """Executes it and watches for its exit through a pidfd. HostError if it can't be executed."""
        self.tail = self._new_tail()
        spec = msgspec.structs.replace(self.spec, argv=with_epoch(self.spec.argv, self.epoch))
        with preferring(self.spec.memory_nodes) as self._unbound:
            popen = spawn(spec, self._run_id, self._store.log_path(self.id), self._store.dir, epoch=self.epoch)
        self._runs(popen.pid, os.pidfd_open(popen.pid), popen)
        self._say(f"started, pid {popen.pid}")
        self.check_binding(self.views(self.server()))

    def adopt(self, pid: int, start_ticks: int) -> None:
        """Takes over a process that runs already and is no child; its life is told by the caller.

        ProcessLookupError when it is gone. Its start time is looked at after the pidfd was opened: from then on the pid
        can't be reused unnoticed.
        """
        descriptor = os.pidfd_open(pid)
        if spawned.start_ticks(pid) != start_ticks:
            os.close(descriptor)
            raise ProcessLookupError(pid)
        self.tail.resume()
        self._runs(pid, descriptor, None)

    def remember(self, restarts: int) -> None:
        """So often it was started again before this supervisor came."""
        self.life = msgspec.structs.replace(self.life, restarts=restarts)

    def keep_log(self) -> None:
        """What the last process wrote becomes `.1`."""
        with contextlib.suppress(OSError):  # a full disk: the log stays whole, and grows on
            rotation.rotate(self._store.log_path(self.id))

    def move(self, event: LifeEvent, message: str | None = None, why: str | None = None) -> tuple[Action, ...]:
        """Applies an event of its life and records the change of state, if it is one; what is to be done now."""
        before, now = self.life, time.monotonic()
        jitter = random.random()  # noqa: S311 - no secret
        self.life, actions = step(before, event, now, self.rules, why=why, jitter=jitter)
        if self.state != before.state:
            self.since = time.time()
            if self.state not in {"starting", "loading"}:
                self.phase = None
            if self.state != "starting":  # which is said once it has a pid
                self._say(message or said(self.life, event, now, self.rules))
        return actions

    def _say(self, message: str) -> None:
        self._events.add("process.state", message, process=self.id, state=self.state, why=self.life.reason)

    def enter(self, phase: str) -> None:
        """Records a phase of start-up; a process that is ready has none, even when a peer's proof needs it."""
        if phase == self.phase or self.state not in {"starting", "loading"}:
            return
        self._show(phase)
        self.move("progress", "loading")

    def wait_for(self, other: str) -> None:
        """Records that it is not started before another process is up."""
        self._show(f"waits for {other}")

    def _show(self, phase: str) -> None:
        self.phase, self.phase_since = phase, time.time()
        self._events.add("process.phase", phase, process=self.id, phase=phase)

    def server(self) -> list[psutil.Process]:
        """The process alone, while it runs."""
        return ownership.as_processes([self.pid]) if self.pid else []

    def processes(self) -> list[psutil.Process]:
        """The process and its descendants as of now. It reads all of /proc: on a busy host not for the event loop."""
        return ownership.tree(self.pid) if self.pid else []

    def hold_cores(self) -> None:
        """Undoes pinning of the engine's own on machines without a GPU, where it puts workers onto one core."""
        if self.spec.ucx and not self.spec.gpus:
            cores = parse_cpu_list(self.spec.cpus) if self.spec.cpus else os.sched_getaffinity(0)
            hold_to(cores, self.processes())

    def views(self, members: list[psutil.Process] | None = None) -> list[ProcessView]:
        """Where its processes, or these of them, and their threads may run and allocate now. It can take a while."""
        if not (self.spec.cpus or self.spec.memory_nodes):
            return []
        found = self.processes() if members is None else members
        return [view for member in found if (view := procfs.view(member.pid))]

    def check_binding(self, views: list[ProcessView]) -> None:
        """Holds them against the plan, for the status; what differs is said in an event, once."""
        found = judge(self.spec.cpus, self.spec.memory_nodes, views, self._unbound)
        said = self.bound.note if self.bound else None
        if found and not found.ok and found.note != said:
            self._events.add("warning", "not bound as planned", process=self.id, why=found.note)
        self.bound = found

    def clear_leftovers(self) -> list[psutil.Process]:
        """Kills it and what it left behind: engine children that would hold its device and ports; the survivors.

        What it made of shared memory goes with it, unless somebody else maps it.
        """

        def mine() -> list[psutil.Process]:
            return ownership.processes_of(self._run_id, self.id)

        starts = spawned.read(self._store.dir, self._run_id)
        made = shared_memory.made_by(ownership.stop_all(mine), starts)
        left = ownership.end_all(mine, grace_s=0.0)
        if not left:
            shared_memory.remove_unused(made | segments.read(self._store.dir, self._run_id, self.id))
        return left

    def last_lines(self) -> list[str]:
        """The last lines of its log, UCX's left out."""
        self.tail.poll()
        return list(self.tail.lines)[-TAIL_LINES:]

    async def seen(self) -> LogSeen:
        """What its log told so far."""
        tail = self.last_lines()
        return LogSeen(ucx=self.tail.ucx.said(), cause=self.tail.cause, tail=tuple(tail))

    def exit_text(self) -> str:
        """How it ended, in words."""
        return exit_text(self.returncode)

    def status(self) -> ProcessStatus:
        """Its row of the status document."""
        return msgspec.structs.replace(
            ProcessStatus.planned(self.spec),
            pid=self.pid,
            state=self.state,
            phase=self.phase,
            phase_since=self.phase_since if self.phase else None,
            bound=self.bound if self.pid else None,
            restarts=self.restarts,
            since=self.since,
            rss_bytes=self.rss_bytes if self.pid else None,
        )

    def _new_tail(self) -> LogTail:
        ucx = self._store.ucx / f"{self.id}.log" if self.spec.ucx else None
        tail = LogTail(self.spec, self._store.log_path(self.id), ucx, self.enter)
        tail.skip_to_end()
        return tail

    def _runs(self, pid: int, descriptor: int, popen: subprocess.Popen[bytes] | None) -> None:
        """The process of that pid is this one's from now on; `descriptor` is its pidfd."""
        loop, exited = asyncio.get_running_loop(), asyncio.Event()
        self._pid, self.exited, self.returncode, self.phase, self.bound = pid, exited, None, None, None

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            self.returncode = popen.wait() if popen else None
            exited.set()
            self.on_exit()

        loop.add_reader(descriptor, ended)
        self.started.set()
