"""Makes the supervisor the parent of orphans of its run, and collects them when they end."""

from __future__ import annotations

import contextlib
import ctypes
import os

import psutil

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Asks Linux to reparent orphaned descendants to this process (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(managed: set[int]) -> None:
    """Collects ended children that were inherited; the `managed` ones are waited for elsewhere."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process().children():
            if child.pid not in managed:
                with contextlib.suppress(psutil.Error, ChildProcessError):
                    if child.status() == psutil.STATUS_ZOMBIE:
                        os.waitpid(child.pid, os.WNOHANG)
