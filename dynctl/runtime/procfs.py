"""Reads from /proc where a process may run and allocate."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from pathlib import Path

from dynctl.runtime.binding import ProcessView, allowed, policy_of

PROC = Path("/proc")
FIRST_MAPPINGS_BYTES = 4096
"""Read at once: the kernel walks the pages of the mappings that it prints, and an engine's take it seconds."""


def view(pid: int, root: Path = PROC) -> ProcessView | None:
    """The process with all its threads as of now; None when it is gone."""
    process = root / str(pid)
    threads, mems = [], None
    try:
        for task in (process / "task").iterdir():
            with contextlib.suppress(OSError):  # a thread that ended meanwhile
                status = (task / "status").read_text(errors="replace")
                threads.append(allowed(status, "Cpus_allowed_list") or ())
                mems = allowed(status, "Mems_allowed_list")
        name = (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return None
    return ProcessView(pid=pid, name=name, threads=tuple(threads), mems=mems, policy=_policy(process))


def _policy(process: Path) -> str | None:
    try:
        with (process / "numa_maps").open("rb", buffering=0) as file:
            return policy_of((file.read(FIRST_MAPPINGS_BYTES) or b"").decode(errors="replace"))
    except OSError:
        return None


def trees(roots: set[int], root: Path = PROC) -> dict[int, set[int]]:
    """Pids of each of these processes and its descendants, by one pass over /proc; those that are gone miss."""
    children: dict[int, list[int]] = defaultdict(list)
    alive = set()
    for name in os.listdir(root):
        if name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((root / name / "stat").read_bytes().rpartition(b")")[2].split(None, 2)[1])
                children[parent].append(int(name))
                alive.add(int(name))
    found = {}
    for top in roots & alive:
        members, waiting = {top}, [top]
        while waiting:
            below = children[waiting.pop()]
            members.update(below)
            waiting += below
        found[top] = members
    return found
