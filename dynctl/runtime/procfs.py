"""Reads from /proc where a process may run and allocate."""

from __future__ import annotations

import contextlib
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
