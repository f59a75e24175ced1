"""Ends what a run left that nobody supervises any more, in order, and proves that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import msgspec
import psutil

from dynctl.environ import PROCESS_VARIABLE
from dynctl.errors import RunStateError
from dynctl.runtime import cgroups, ipc, nothing_left, ownership, segments, shared_memory, spawned
from dynctl.runtime.shared_memory import Segment
from dynctl.store import registrations
from dynctl.store.run import RunStore

SWEEP_GRACE_S = 5.0
SWEEP_POLL_S = 0.1
ORDER = ("frontend", "decode")
"""Nothing new comes in without the frontend; decode holds what is in flight. The rest goes last."""


class Reclaimed(msgspec.Struct, frozen=True):
    """What came of it: processes, segments of shared memory, keys in etcd found, and in words what is still there."""

    processes: int
    segments: int
    keys: int
    survivors: tuple[str, ...]


class Leftovers:
    """What is left of one run on this host. The caller has made sure that nobody supervises it."""

    def __init__(self, run_id: str, store: RunStore) -> None:
        self._run_id, self._store = run_id, store
        self._seen: dict[int, psutil.Process] = {}
        self._starts = spawned.read(store.dir, run_id)
        self._made: set[Segment] = set()

    def processes(self) -> list[psutil.Process]:
        """Its live processes: by environment, control group, noted sessions, and all their descendants."""
        found = {process.pid for process in ownership.processes_of(self._run_id)}
        found |= ownership.noted(self._store.dir, self._run_id)
        below: set[int] = set()
        for pid in sorted(found):
            if pid not in below:  # else its tree is a part of one that was walked: each walk reads all of /proc
                below |= {process.pid for process in ownership.tree(pid)}
        found |= below
        for process in ownership.as_processes(found):
            self._seen.setdefault(process.pid, process)
        return ownership.alive(self._seen.values())

    def end(self, grace_s: float) -> Reclaimed:
        """SIGTERM in order within `grace_s`, then SIGKILL, then the proof."""
        deadline = time.monotonic() + grace_s
        found = self.processes()
        groups = ownership.groups(self._store.dir, self._run_id, self._seen)
        self._made |= segments.read(self._store.dir, self._run_id)
        self._look(found)
        there = sum(segment.is_there() for segment in self._made)
        if grace_s:
            for role in (*ORDER, ""):
                self._ask(role, deadline)
        sweep_s = min(SWEEP_GRACE_S, max(0.0, deadline - time.monotonic()))
        while (left := self.processes()) and sweep_s > 0 and time.monotonic() < deadline:
            self._look(left)
            sweep_s -= SWEEP_POLL_S
            time.sleep(SWEEP_POLL_S)
        if left:
            self._look(ownership.stop_all(self.processes))
            for group in groups:
                cgroups.kill(group)
        alive = ownership.end_all(self.processes, grace_s=0.0)
        keys = 0
        held = [] if alive else nothing_left.remains(self._seen, self._ports(), self._made, groups)
        survivors = (*(ownership.describe(process) for process in alive), *held)
        if not alive:
            ipc.remove(self._run_id, self._runtime_dirs())
            keys = self._registrations()
        if not survivors:
            self._store.ended()
        return Reclaimed(len(found), there, keys, tuple(survivors))

    def _ask(self, role: str, deadline: float) -> None:
        """SIGTERM to the servers of that role, and time to end their children; of any other role with ""."""
        mine = [p for p in self.processes() if self._role(p) == role or (not role and self._role(p) not in ORDER)]
        leaders = [process for process in mine if process.pid in self._leaders()]
        ownership.signal_all(leaders or mine, signal.SIGTERM)
        while ownership.alive(leaders or mine) and time.monotonic() < deadline:
            self._look(self.processes())
            time.sleep(SWEEP_POLL_S)

    def _look(self, processes: list[psutil.Process]) -> None:
        """Notes what they have mapped of shared memory: an engine that was starting goes on making it as it ends."""
        self._made |= shared_memory.made_by(processes, self._starts)

    def _role(self, process: psutil.Process) -> str:
        planned = ownership.environment(process.pid).get(PROCESS_VARIABLE, "")
        return planned.rpartition("-")[0] or planned

    def _leaders(self) -> set[int]:
        """The first process of each session."""
        found = set()
        for pid in self._seen:
            with contextlib.suppress(OSError):
                if os.getsid(pid) == pid:
                    found.add(pid)
        return found

    def _runtime_dirs(self) -> set[Path]:
        """The run's: another terminal may have another TMPDIR."""
        found: set[Path] = set()
        with contextlib.suppress(RunStateError):
            found.add(Path(self._store.record().socket).parent)
        return found

    def _registrations(self) -> int:
        """Keys that its processes have left in an etcd of others', now removed."""
        with contextlib.suppress(RunStateError):
            if self._store.record().run_id == self._run_id:  # else the name is a later run's
                return registrations.clear(self._store.plan())
        return 0

    def _ports(self) -> set[int]:
        with contextlib.suppress(RunStateError):
            return {port for process in self._store.plan().own() for port in process.ports.values()}
        return set()
