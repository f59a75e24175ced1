"""Resident memory of process trees: one pass over /proc for all of them, only while somebody asks."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dynctl.runtime.procfs import PROC

FRESH_S = 2.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Measured(Protocol):
    """A process whose tree is measured."""

    rss_bytes: int | None

    @property
    def pid(self) -> int | None:
        """Its pid while it runs."""


class Memory:
    """`look` brings every `rss_bytes` up to date, at most every two seconds: with many workers a pass takes long."""

    def __init__(self, processes: Mapping[str, Measured]) -> None:
        self._processes = processes
        self._pids: list[int | None] = []
        self._looked_at = float("-inf")

    def look(self) -> None:
        """What is not fresh, or was of other processes, is measured again."""
        processes = list(self._processes.values())
        now, pids = time.monotonic(), [process.pid for process in processes]
        if now - self._looked_at < FRESH_S and pids == self._pids:
            return
        self._looked_at, self._pids = now, pids
        sums = resident_bytes({pid for pid in pids if pid})
        for process, pid in zip(processes, pids, strict=True):
            process.rss_bytes = sums.get(pid) if pid else None


def resident_bytes(roots: set[int], proc: Path = PROC) -> dict[int, int]:
    """Resident bytes of each process and its descendants (proc(5): stat's ppid and rss); those that are gone miss."""
    own: dict[int, int] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir(proc):
        if name.isdigit():
            with contextlib.suppress(OSError):
                fields = (proc / name / "stat").read_bytes().rpartition(b")")[2].split()
                own[int(name)] = int(fields[21]) * PAGE_BYTES
                children[int(fields[1])].append(int(name))
    found = {}
    for root in roots & own.keys():
        total, waiting = 0, [root]
        while waiting:
            pid = waiting.pop()
            total += own[pid]
            waiting += children[pid]
        found[root] = total
    return found
