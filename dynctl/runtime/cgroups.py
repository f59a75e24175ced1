"""A control group per run, with one child per process, where this user may make one: no process can leave it unseen.

Only cgroup v2, below the caller's own group; no controllers are enabled, so nothing is limited. Where none may be made
(a login session's scope, a read-only mount, cgroup v1) runs do without: every function then finds nothing.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterable
from pathlib import Path

PREFIX = "dynctl-"
EMPTY_S = 2.0
"""A group is empty a moment after its last process was collected."""


def join(run_id: str, process_id: str, pid: int) -> str | None:
    """Puts a process that was just started into its group; the run's group, None where that can't be done."""
    base = own()
    if base is None:
        return None
    run = base / f"{PREFIX}{run_id}"
    try:
        (run / process_id).mkdir(parents=True, exist_ok=True)
        (run / process_id / "cgroup.procs").write_text(str(pid))
    except OSError:
        with contextlib.suppress(OSError):
            (run / process_id).rmdir()
            run.rmdir()
        return None
    return str(run)


def of_run(run_id: str, pids: Iterable[int] = ()) -> set[Path]:
    """The run's group: below the caller's own, and wherever these processes are."""
    found = {base / f"{PREFIX}{run_id}"} if (base := own()) else set()
    mount = _mount()
    for pid in pids if mount else ():
        parts = _group(pid).split("/")
        if f"{PREFIX}{run_id}" in parts:
            found.add(Path(f"{mount}{'/'.join(parts[: parts.index(f'{PREFIX}{run_id}') + 1])}"))
    return {group for group in found if group.is_dir()}


def members(group: Path, process_id: str | None = None) -> set[int]:
    """Pids of the group's processes, or of one process's; 0, a process of another pid namespace, is left out."""
    found: set[int] = set()
    top = group / process_id if process_id else group
    for listing in top.rglob("cgroup.procs"):
        with contextlib.suppress(OSError, ValueError):
            found.update(int(line) for line in listing.read_text().split())
    return found - {0}


def kill(group: Path) -> None:
    """SIGKILL to all of them at once, forks under way included (Linux 5.14)."""
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")


def remove(group: Path) -> None:
    """Removes an empty group with its children. One that is not empty stays."""
    deadline = time.monotonic() + EMPTY_S
    while group.is_dir() and time.monotonic() < deadline:
        for child in sorted(group.rglob("*"), reverse=True):
            with contextlib.suppress(OSError):
                if child.is_dir():
                    child.rmdir()
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.02)


@functools.cache
def _mount() -> Path | None:
    """Where cgroup v2 is mounted."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, _, kind = line.partition(" - ")
            if kind.startswith("cgroup2 "):
                return Path(fields.split()[4])
    return None


def _group(pid: int | str) -> str:
    """The v2 group of a process, as a path below the mount; "" when it can't be told."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return line.removeprefix("0::").rstrip("/")
    return ""


def own() -> Path | None:
    """The caller's group, or the one that holds the run which the caller is of; None where nothing may be made."""
    mount = _mount()
    if mount is None or ".." in (own := _group("self")).split("/"):
        return None
    base = Path(f"{mount}{own.partition(f'/{PREFIX}')[0]}")
    return base if os.access(base, os.W_OK) else None
