"""Small readers of sysfs and procfs. What is absent, unreadable or not what it should be is None: files vanish."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from dynctl.hardware.values import parse_cpu_list

MAX_CHARACTERS = 1 << 20


class PciDevice(NamedTuple):
    """A device's address (`0000:18:00.0`), the components of its real path below sys/devices, and its NUMA node."""

    address: str = ""
    path: tuple[str, ...] = ()
    numa: int | None = None


def text(path: Path) -> str | None:
    """The file's text, stripped; None where it can't be read (sysfs answers EINVAL for what has no value)."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(MAX_CHARACTERS).strip()
    except (OSError, UnicodeDecodeError, ValueError):
        return None


def integer(path: Path) -> int | None:
    """The file's decimal number."""
    found = text(path)
    try:
        return int(found) if found else None
    except ValueError:
        return None


def cores(found: str | None) -> tuple[int, ...]:
    """The cores of a cpu list; none where it is not one."""
    try:
        return parse_cpu_list(found) if found else ()
    except ValueError:
        return ()


def names(path: Path) -> list[str]:
    """Names of a directory's entries in order; none where there is no such directory."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def exists(path: Path) -> bool:
    """Whether there is such a file; no where that can't be told (`Path.exists` raises on EACCES)."""
    return os.path.exists(path)


def pci_device(root: Path, device: Path) -> PciDevice:
    """The PCI device behind a `device` link, or a directory of /sys/bus/pci/devices."""
    numa = integer(device / "numa_node")
    numa = numa if numa is not None and numa >= 0 else None
    base = os.path.realpath(root / "sys/devices") + os.sep
    real = os.path.realpath(device)
    if not real.startswith(base):
        return PciDevice(numa=numa)
    path = tuple(part.lower() for part in real.removeprefix(base).split(os.sep))
    return PciDevice(path[-1], path, numa) if _is_pci(path) else PciDevice(numa=numa)


def _is_pci(path: tuple[str, ...]) -> bool:
    return path[0].startswith("pci") and path[-1].count(":") == 2
