"""Which processes are the run's, whatever happened to their parents, and how all of them are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from dynctl.environ import PROCESS_VARIABLE, RUN_ID_VARIABLE, SUPERVISES_VARIABLE
from dynctl.runtime import cgroups, spawned

POLL_S = 0.05


def processes_of(run_id: str, process_id: str | None = None) -> list[psutil.Process]:
    """Every live process of the run (and of that process of it) in this pid namespace, whoever its parent is now.

    By the run's id in its environment, or by its control group where there is one: a process that cleared its
    environment can't leave that. Zombies hold nothing and are left out, as is the caller.
    """
    marks = {RUN_ID_VARIABLE: run_id, **({PROCESS_VARIABLE: process_id} if process_id else {})}
    found = {pid for pid in psutil.pids() if marks.items() <= environment(pid).items()}
    for group in cgroups.of_run(run_id, found):
        found |= cgroups.members(group, process_id)
    return as_processes(found)


def noted(directory: Path, run_id: str) -> set[int]:
    """Pids by what the run noted on disk when it started them: sessions whose leader lives, control groups."""
    found: set[int] = set()
    for one in spawned.read(directory, run_id):
        found |= spawned.session_members(one)
        if one.cgroup:
            found |= cgroups.members(Path(one.cgroup))
    return found


def groups(directory: Path, run_id: str, pids: Iterable[int]) -> list[Path]:
    """The run's control groups: there are several where it was adopted from another login."""
    written = {Path(one.cgroup) for one in spawned.read(directory, run_id) if one.cgroup}
    return sorted(cgroups.of_run(run_id, pids) | {group for group in written if group.is_dir()})


def in_groups(found: Iterable[Path]) -> list[psutil.Process]:
    """The live processes of these control groups."""
    return as_processes({pid for group in found for pid in cgroups.members(group)})


def as_processes(pids: Iterable[int]) -> list[psutil.Process]:
    """Those that are alive, without zombies and the caller."""
    found = []
    for pid in sorted(pids):
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def supervisors() -> dict[str, int]:
    """Pids of live supervisors, frozen ones too, by the run they supervise, in this pid namespace."""
    found = {}
    for pid in psutil.pids():
        if run_id := environment(pid).get(SUPERVISES_VARIABLE):
            found[run_id] = pid
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


def stop_all(find: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """SIGSTOP to all that `find` names, until it names no new ones: what they hold can be read before SIGKILL."""
    stopped: dict[int, psutil.Process] = {}
    while fresh := [process for process in alive(find()) if process.pid not in stopped]:
        signal_all(fresh, signal.SIGSTOP)
        stopped |= {process.pid: process for process in fresh}
    return list(stopped.values())


def describe(process: psutil.Process) -> str:
    """`pid 4121 (VLLM::EngineCore)`, with the state where it can't be killed."""
    with contextlib.suppress(psutil.Error):
        state = " in uninterruptible sleep" if process.status() == psutil.STATUS_DISK_SLEEP else ""
        return f"pid {process.pid} ({process.name()}){state}"
    return f"pid {process.pid}"


def environment(pid: int) -> dict[str, str]:
    """What a process was started with; empty when that is another user's, or it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if b"DYNCTL_" not in (data := file.read()):
                return {}
    except OSError:
        return {}
    pairs = (item.partition("=") for item in data.decode(errors="surrogateescape").split("\0"))
    return {name: value for name, _, value in pairs}
