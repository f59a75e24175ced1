"""Makes the supervisor the parent of orphans of its run, and collects them when they end."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
TASKS = Path("/proc/self/task")


def adopt_orphans() -> None:
    """Asks Linux to reparent orphaned descendants to this process (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(managed: set[int]) -> None:
    """Collects ended children that were inherited; the `managed` ones are waited for elsewhere."""
    for pid in _children():
        if pid not in managed:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _children() -> Iterable[int]:
    """Pids of this process's children, zombies too.

    The kernel lists them by the thread whose child they are (proc(5), CONFIG_PROC_CHILDREN). Done at every end of a
    child, before anything is said of it, a pass over all of /proc would cost tens of milliseconds on a busy host.
    """
    try:
        return [int(pid) for task in TASKS.iterdir() for pid in (task / "children").read_text().split()]
    except OSError:
        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process().children()]
        return []
