"""Proof that a run has left nothing on this host: GPU memory, listening ports, shared memory, control groups."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil

from dynctl.hardware import nvml
from dynctl.runtime import cgroups, shared_memory
from dynctl.runtime.shared_memory import Segment

LISTEN = "0A"
"""TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp writes it."""
RELEASE_S = 5.0
"""A driver gives memory back, and the kernel ports, a moment after the process is gone."""


def remains(
    pids: Collection[int], ports: Collection[int], segments: set[Segment], groups: Collection[Path]
) -> list[str]:
    """In words what is still held of a run whose processes, `pids`, have ended. Empty: nothing is left.

    `ports`: those of the plan. `segments`: shared memory that they made; what another
    process maps as well is that one's, too. Both are removed, or waited
    for, first.
    """
    shared_memory.remove_unused(segments)
    for group in groups:
        cgroups.remove(group)
    deadline = time.monotonic() + RELEASE_S
    while (held := [*_gpu_owners(pids), *_listeners(pids, ports)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = (f"shared memory {segment.path}" for segment in shared_memory.left(segments))
    return [*held, *left, *(f"control group {group}" for group in groups if group.is_dir())]


def _gpu_owners(pids: Collection[int]) -> Iterator[str]:
    if not nvml.has_driver():
        return
    for gpu in nvml.discover().gpus:
        for holder in gpu.holders:
            if holder.pid in pids:
                yield f"memory of GPU {gpu.index}, held by pid {holder.pid}"


def _listeners(pids: Collection[int], ports: Collection[int]) -> Iterator[str]:
    """Ports of the plan that this user listens on, unless a process that is not the run's is seen to hold them."""
    held = {port for table in ("tcp", "tcp6") for port in _listening(Path("/proc/net") / table)} & set(ports)
    if not held:
        return
    others = set()
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            here = connection.status == psutil.CONN_LISTEN and connection.pid not in (None, *pids)
            others |= {address.port for address in (connection.laddr,) if address and here}
    for port in sorted(held - others):
        yield f"port {port}"


def _listening(table: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for line in table.read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and int(fields[7]) == os.getuid():
                yield int(fields[1].rpartition(":")[2], 16)
