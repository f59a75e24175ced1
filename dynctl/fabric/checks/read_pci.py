"""PCI functions below a root: NVIDIA GPUs, Mellanox NICs, and every bridge above them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from dynctl.fabric.checks import pci_config
from dynctl.fabric.checks.tree import device_path, link, names, read, read_bytes
from dynctl.fabric.checks.values import NOT_READ, PciFunction

ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
MELLANOX, NVIDIA = "0x15b3", "0x10de"
NETWORK, DISPLAY = "0x02", "0x03"


def find(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """PCI addresses of Mellanox network functions, and of NVIDIA GPUs."""
    base, nics, gpus = root / "sys/bus/pci/devices", [], []
    for name in names(base):
        vendor = read(base / name / "vendor").text
        if not ADDRESS.fullmatch(name) or vendor not in (MELLANOX, NVIDIA):
            continue
        kind = read(base / name / "class").text or ""
        if vendor == MELLANOX and kind.startswith(NETWORK):
            nics.append(name)
        if vendor == NVIDIA and kind.startswith(DISPLAY):
            gpus.append(name)
    return tuple(nics), tuple(gpus)


def read_functions(root: Path, addresses: Iterable[str]) -> dict[str, PciFunction]:
    """Those functions and all above them, by address."""
    found: dict[str, PciFunction] = {}
    for address in addresses:
        path = device_path(root, root / "sys/bus/pci/devices" / address)
        for depth, name in enumerate(path):
            if ADDRESS.fullmatch(name) and name not in found:
                found[name] = _function(root, path[: depth + 1])
    return found


def _function(root: Path, components: tuple[str, ...]) -> PciFunction:
    path = root.joinpath("sys/devices", *components)
    config, error = read_bytes(path / "config", 4096)
    group = Path(link(path / "iommu_group").text or "").name
    return PciFunction(
        path=components,
        vendor=read(path / "vendor").text or "",
        device=read(path / "device").text or "",
        kind=read(path / "class").text or "",
        driver=Path(link(path / "driver").text or "").name or None,
        numa=read(path / "numa_node"),
        speed=read(path / "current_link_speed"),
        width=read(path / "current_link_width"),
        max_speed=read(path / "max_link_speed"),
        max_width=read(path / "max_link_width"),
        virtual=link(path / "physfn").text is not None,
        config_bytes=len(config),
        config_error=error,
        max_read_request_bytes=pci_config.max_read_request_bytes(config),
        acs_control=pci_config.acs_control(config),
        iommu=read(root / "sys/kernel/iommu_groups" / group / "type") if group else NOT_READ,
    )
