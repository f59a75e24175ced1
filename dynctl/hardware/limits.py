"""Limits of this process: resource limits, the cgroup's, /dev/shm, and whether it is in a container."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from dynctl.hardware import sysfs
from dynctl.hardware.values import Limits

Value = TypeVar("Value", int, float)

CGROUP = "sys/fs/cgroup"
UNLIMITED_BYTES = 1 << 60
"""cgroup v1 writes "no limit" as a number near 2^63."""


def limits(root: Path) -> Limits:
    """As they are now. Files are read below `root`, resource limits are this process's own."""
    memlock, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    nofile, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    shm_bytes, shm_free_bytes = _shm(root)
    return Limits(
        memlock_bytes=None if memlock == resource.RLIM_INFINITY else memlock,
        memlock_unlimited=memlock == resource.RLIM_INFINITY,
        nofile=None if nofile == resource.RLIM_INFINITY else nofile,
        shm_bytes=shm_bytes,
        shm_free_bytes=shm_free_bytes,
        cpu_quota=_least(_quota(path) for path in _groups(root, "cpu")),
        memory_bytes=_least(_memory(path) for path in _groups(root, "memory")),
        container=container(root),
    )


def container(root: Path) -> str | None:
    """The kind of container this is, by the files that its runtime leaves; None on a host."""
    if (root / ".dockerenv").exists():
        return "docker"
    if (root / "run/.containerenv").exists():
        return "podman"
    named = sysfs.text(root / "run/systemd/container")
    if named:
        return named
    match = re.search(r"\b(kubepods|docker|containerd|lxc)\b", sysfs.text(root / "proc/1/cgroup") or "")
    return match[1] if match else None


def _shm(root: Path) -> tuple[int | None, int | None]:
    try:
        found = os.statvfs(root / "dev/shm")
    except OSError:
        return None, None
    return found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Directories of this process's cgroup and all above it, v2 and v1: each may set a limit, the least counts."""
    for line in (sysfs.text(root / "proc/self/cgroup") or "").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            base = root / CGROUP
        elif controller in controllers.split(","):
            joint = root / CGROUP / controllers  # v1 mounts controllers together, `cpu,cpuacct`, or apart
            base = joint if joint.is_dir() else root / CGROUP / controller
        else:
            continue
        if ".." in Path(path).parts:  # outside of this cgroup namespace
            continue
        directory = base / path.lstrip("/")
        while directory != base and base in directory.parents:
            yield directory
            directory = directory.parent
        yield base


def _quota(path: Path) -> float | None:
    """Cores' worth of time: v2 `cpu.max` is `QUOTA PERIOD` or `max PERIOD`; v1 has two files, -1 is no limit."""
    words = (sysfs.text(path / "cpu.max") or "").split()
    if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
        return int(words[0]) / int(words[1])
    quota, period = sysfs.integer(path / "cpu.cfs_quota_us"), sysfs.integer(path / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _memory(path: Path) -> int | None:
    found = sysfs.integer(path / "memory.max") or sysfs.integer(path / "memory.limit_in_bytes")
    return found if found and found < UNLIMITED_BYTES else None


def _least(found: Iterator[Value | None]) -> Value | None:
    return min((value for value in found if value is not None), default=None)
