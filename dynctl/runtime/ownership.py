"""Which processes are the run's, whatever happened to their parents, and how all of them are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable

import psutil

from dynctl.environ import PROCESS_VARIABLE, RUN_ID_VARIABLE

POLL_S = 0.05


def processes_of(run_id: str, process_id: str | None = None) -> list[psutil.Process]:
    """Every live process whose environment carries the run's id (and that process's), in this pid namespace.

    Zombies hold nothing and are left out, as is the caller.
    """
    marks = {f"{RUN_ID_VARIABLE}={run_id}".encode()}
    if process_id:
        marks.add(f"{PROCESS_VARIABLE}={process_id}".encode())
    found = []
    for pid in psutil.pids():
        if pid != os.getpid() and marks.issubset(_environment(pid).split(b"\0")):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
    return found


def tree(pid: int) -> list[psutil.Process]:
    """The process and all its descendants, as of now; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Sends the signal to each; psutil checks start times, so a reused pid is never hit."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_all(find: Callable[[], list[psutil.Process]], *, grace_s: float, kill_s: float = 10.0) -> list[psutil.Process]:
    """SIGTERM to all that `find` names, SIGKILL to what is left after `grace_s`; the survivors are returned.

    Nothing is collected here: psutil's own waiting would take the exit status from whoever started the process.
    """
    deadline = time.monotonic() + grace_s
    found = find()
    signal_all(found, signal.SIGTERM)
    while time.monotonic() < deadline and (found := alive(find())):
        time.sleep(POLL_S)
    deadline = time.monotonic() + kill_s
    while (found := alive(find())) and time.monotonic() < deadline:
        signal_all(found, signal.SIGKILL)
        time.sleep(POLL_S)
    return found


def describe(process: psutil.Process) -> str:
    """`pid 4121 (VLLM::EngineCore)`, with the state where it can't be killed."""
    with contextlib.suppress(psutil.Error):
        state = " in uninterruptible sleep" if process.status() == psutil.STATUS_DISK_SLEEP else ""
        return f"pid {process.pid} ({process.name()}){state}"
    return f"pid {process.pid}"


def _environment(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""
