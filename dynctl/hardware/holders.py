"""Who holds a GPU: NVML's pids matched with this host's processes and with dynctl's runs.

NVML counts pids of the host's namespace. In a container the same number may be somebody else, so a pid counts as
matched only in the host's own namespace, or where that process has an NVIDIA device open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from dynctl.environ import RUN_ID_VARIABLE
from dynctl.hardware import sysfs
from dynctl.hardware.values import Holder

HOST_PID_NAMESPACE = "pid:[4026531836]"
"""The first pid namespace's inode is fixed: PROC_PID_INIT_INO of include/linux/proc_ns.h."""
COMMAND_CHARACTERS = 60


class KnownRun(NamedTuple):
    """A run that left a record on this host: its name, and whether a supervisor holds it now."""

    name: str
    supervised: bool


Runs = Callable[[], Mapping[str, KnownRun]]
"""Looks the runs of this boot and pid namespace up, by run id; asked only where a GPU is held."""


def no_runs() -> Mapping[str, KnownRun]:
    """Where no run is known."""
    return {}


class HolderLookup:
    """Turns NVML's pids into holders. Processes may end meanwhile: then they are unknown."""

    def __init__(self, root: Path, runs: Runs) -> None:
        self._proc = root / "proc"
        self._look_up = runs
        self._runs: Mapping[str, KnownRun] | None = None

    def holder(self, pid: int) -> Holder:
        """The process of that NVML pid; without pid and command where it can't be matched."""
        if not self._is_here(pid):
            return Holder()
        command = self._command(pid)
        run_id = self._run_id(pid)
        if run_id is None:
            return Holder(pid=pid, command=command, kind="other")
        if self._runs is None:
            self._runs = self._look_up()
        run = self._runs.get(run_id)
        if run is None:  # of a run whose record is not ours to read: it may be alive
            return Holder(pid=pid, command=command)
        return Holder(pid=pid, command=command, kind="run" if run.supervised else "orphan", run=run.name)

    def _is_here(self, pid: int) -> bool:
        if not (self._proc / str(pid)).is_dir():
            return False
        try:
            if os.readlink(self._proc / "self/ns/pid") == HOST_PID_NAMESPACE:
                return True
        except OSError:
            pass
        return any(self._opens_nvidia(self._proc / str(pid) / "fd" / name) for name in self._descriptors(pid))

    def _descriptors(self, pid: int) -> list[str]:
        return sysfs.names(self._proc / str(pid) / "fd")

    def _opens_nvidia(self, descriptor: Path) -> bool:
        try:
            return os.readlink(descriptor).startswith("/dev/nvidia")
        except OSError:
            return False

    def _command(self, pid: int) -> str | None:
        """The program, or the module it runs; other arguments may hold secrets, and snapshots are passed on."""
        argv = (sysfs.text(self._proc / str(pid) / "cmdline") or "").split("\0")
        words = [os.path.basename(argv[0].strip()), *(argv[1:3] if argv[1:2] == ["-m"] else ())]
        return " ".join(words)[:COMMAND_CHARACTERS] or sysfs.text(self._proc / str(pid) / "comm")

    def _run_id(self, pid: int) -> str | None:
        mark = f"{RUN_ID_VARIABLE}="
        found = (sysfs.text(self._proc / str(pid) / "environ") or "").split("\0")
        return next((item.removeprefix(mark) for item in found if item.startswith(mark)), None)
