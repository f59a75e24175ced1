"""NUMA nodes with the cores this process may use, and their memory."""

from __future__ import annotations

import os
from pathlib import Path

from dynctl.hardware import sysfs
from dynctl.hardware.values import NumaNode

NODES = "sys/devices/system/node"


def allowed_cores(root: Path) -> tuple[int, ...]:
    """Cores this process may run on: its cpuset and affinity."""
    for line in (sysfs.text(root / "proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list" and (found := sysfs.cores(value.strip())):
            return found
    return tuple(sorted(os.sched_getaffinity(0)))


def numa_nodes(root: Path, allowed: tuple[int, ...]) -> tuple[NumaNode, ...]:
    """Nodes in order; none where the kernel has no NUMA. A node may have memory and no cores, or the reverse."""
    names = [name for name in sysfs.names(root / NODES) if name.startswith("node") and name[4:].isdecimal()]
    return tuple(_node(root / NODES / name, set(allowed)) for name in sorted(names, key=lambda name: int(name[4:])))


def _node(path: Path, allowed: set[int]) -> NumaNode:
    cores = tuple(core for core in sysfs.cores(sysfs.text(path / "cpulist")) if core in allowed)
    return NumaNode(index=int(path.name[4:]), cores=cores, memory_bytes=_memory(path / "meminfo"))


def _memory(path: Path) -> int:
    """`Node 0 MemTotal: 1056375276 kB`, in bytes."""
    for line in (sysfs.text(path) or "").splitlines():
        words = line.split()
        if "MemTotal:" in words and words[-1] == "kB" and words[-2].isdecimal():
            return int(words[-2]) << 10
    return 0
