"""Puts a worker's threads back onto the cores it was planned for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import psutil


def hold_to(cores: Iterable[int], processes: Iterable[psutil.Process]) -> None:
    """Sets the affinity of every thread of these processes. Threads that end meanwhile are passed over.

    vLLM's NIXL connector pins each CPU worker to the last core of the NUMA node (nixl/base_worker.py), so that
    prefill and decode, which both spin while they wait, would share one core and KV transfers take seconds.
    """
    wanted = set(cores)
    for process in processes:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(task.name), wanted)
