"""Which shared memory a run's processes made, on disk: whoever is killed with all others can't be asked any more."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from dynctl.runtime import ownership, procfs, spawned
from dynctl.runtime.beat import next_beat
from dynctl.runtime.shared_memory import Segment, made_by
from dynctl.store.run import SEGMENTS_FILE
from dynctl.telemetry.status import ProcessState

LOOK_S = 1.0
STARTING: tuple[ProcessState, ...] = ("starting", "loading")


class Noted(msgspec.Struct, frozen=True):
    """One, and the process of the plan that was seen to map it."""

    run_id: str
    id: str
    segment: Segment


def note(directory: Path, notes: Iterable[Noted]) -> bool:
    """Appends them; False where that can't be done."""
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in notes)
    try:
        with open(directory / SEGMENTS_FILE, "ab", buffering=0) as file:
            os.fchmod(file.fileno(), 0o600)
            return file.write(lines) == len(lines)
    except OSError:
        return False


def read(directory: Path, run_id: str, process_id: str | None = None) -> set[Segment]:
    """Those of that run, or of that process of it. Lines that can't be read are passed over."""
    found = set()
    with contextlib.suppress(OSError):
        for line in (directory / SEGMENTS_FILE).read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                one = msgspec.json.decode(line, type=Noted)
                if one.run_id == run_id and process_id in (None, one.id):
                    found.add(one.segment)
    return found


class Watched(Protocol):
    """A process of the run."""

    @property
    def state(self) -> ProcessState:
        """The state of its life."""

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""


class Noting:
    """Looks what each process has mapped while it starts, and once more when it has: that is when engines make it."""

    def __init__(self, directory: Path, run_id: str, processes: Mapping[str, Watched]) -> None:
        self._directory, self._run_id, self._processes = directory, run_id, processes
        self._settled: dict[str, int] = {}
        self._noted: set[Noted] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await next_beat(LOOK_S)
            if due := self._due():
                await asyncio.to_thread(self.look, {process_id: pid for process_id, (pid, _) in due.items()})
                self._settled |= {process_id: pid for process_id, (pid, starts) in due.items() if not starts}

    def look(self, pids: Mapping[str, int]) -> None:
        """Notes what is new of these processes, by id, and their descendants."""
        members, starts = procfs.trees(set(pids.values())), spawned.read(self._directory, self._run_id)
        found = {
            Noted(self._run_id, process_id, segment)
            for process_id, pid in pids.items()
            for segment in made_by(ownership.as_processes(members.get(pid, ())), starts)
        }
        if (fresh := found - self._noted) and note(self._directory, fresh):
            self._noted |= fresh

    def _due(self) -> dict[str, tuple[int, bool]]:
        """Pid, and whether it is starting still."""
        found = {}
        for process_id, process in self._processes.items():
            starts = process.state in STARTING
            if (pid := process.pid) and (starts or self._settled.get(process_id) != pid):
                found[process_id] = (pid, starts)
        return found
