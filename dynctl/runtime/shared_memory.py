"""POSIX shared-memory segments that a run's own processes had mapped: an engine killed hard leaves them behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil

SHARED_MEMORY = "/dev/shm/"  # noqa: S108 - where Linux keeps POSIX shared memory


def mapped_by(pids: Iterable[int]) -> set[str]:
    """Paths of the segments that these processes have mapped now. What can't be read is left out."""
    found: set[str] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
            found.update(
                path for line in lines if (path := line.partition(SHARED_MEMORY)[2]) and "(deleted)" not in path
            )
    return {SHARED_MEMORY + path for path in found}


def remove_unused(segments: set[str]) -> list[str]:
    """Removes those that nobody maps any more; the ones removed."""
    left = {path for path in segments if Path(path).exists()}
    if left:
        left -= mapped_by(psutil.pids())
    for path in left:
        with contextlib.suppress(OSError):
            Path(path).unlink()
    return sorted(left)
