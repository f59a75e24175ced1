"""RDMA devices by sysfs: ports, GIDs, network interfaces, PCI path, bonds and virtual functions."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from dynctl.hardware import sysfs
from dynctl.hardware.values import Gid, Nic, NicPort

CLASS = "sys/class/infiniband"


def rdma_devices(root: Path) -> tuple[Nic, ...]:
    """All of them, in the order people count in (`mlx5_2` before `mlx5_10`); what each is for is not decided here."""
    return tuple(_nic(root, root / CLASS / name) for name in sorted(sysfs.names(root / CLASS), key=natural))


def natural(name: str) -> tuple[str, int]:
    """Sort key of a device name: its head, then its number."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or -1)


def _nic(root: Path, path: Path) -> Nic:
    device = path / "device"
    pci = sysfs.pci_device(root, device)
    netdevs = tuple(sysfs.names(device / "net"))
    software = not sysfs.exists(device)
    return Nic(
        name=path.name,
        pci=pci.address,
        pci_path=pci.path,
        numa=pci.numa,
        ports=tuple(
            _port(path / "ports" / number)
            for number in sorted(sysfs.names(path / "ports"), key=natural)
            if number.isdecimal()
        ),
        netdevs=netdevs,
        virtual=sysfs.exists(device / "physfn"),
        pci_id=_pci_id(device),
        bond=_bond(root, path.name, netdevs),
        use="unusable" if software else "kv",
        use_reason="software RDMA: there is no device behind it" if software else None,
    )


def _pci_id(device: Path) -> str | None:
    vendor, model = sysfs.text(device / "vendor"), sysfs.text(device / "device")
    return f"{vendor.removeprefix('0x')}:{model.removeprefix('0x')}".lower() if vendor and model else None


def _bond(root: Path, name: str, netdevs: tuple[str, ...]) -> str | None:
    """The bond its interfaces belong to; a device that stands for a bond is called so by its driver (`mlx5_bond_0`)."""
    for netdev in netdevs:
        net = root / "sys/class/net" / netdev
        if sysfs.exists(net / "bonding"):
            return netdev
        master = net / "master"
        if sysfs.exists(master / "bonding"):
            return os.path.basename(os.path.realpath(master))
    return name if "_bond" in name else None


def _port(path: Path) -> NicPort:
    layer = sysfs.text(path / "link_layer")
    return NicPort(
        number=int(path.name),
        state=_word(sysfs.text(path / "state")),
        phys_state=_word(sysfs.text(path / "phys_state")),
        rate_gigabits_per_s=_rate(sysfs.text(path / "rate")),
        link_layer=_layer(layer),
        gids=_gids(path),
    )


def _layer(found: str | None) -> Literal["InfiniBand", "Ethernet"] | None:
    return "InfiniBand" if found == "InfiniBand" else "Ethernet" if found == "Ethernet" else None


def _word(found: str | None) -> str | None:
    """`4: ACTIVE` -> `ACTIVE`."""
    return (found.partition(":")[2].strip() or found) if found else None


def _rate(found: str | None) -> float | None:
    """`400 Gb/sec (4X NDR)` -> 400.0."""
    match = re.match(r"([\d.]+)\s*Gb/sec", found or "")
    try:
        return float(match[1]) if match else None
    except ValueError:
        return None


def _gids(path: Path) -> tuple[Gid, ...]:
    """The entries in use: an empty one is all zeros, and its attributes answer EINVAL."""
    found = []
    for name in sorted(sysfs.names(path / "gids"), key=natural):
        gid = sysfs.text(path / "gids" / name)
        if name.isdecimal() and gid and gid.strip("0:"):
            attributes = path / "gid_attrs"
            kind, netdev = sysfs.text(attributes / "types" / name), sysfs.text(attributes / "ndevs" / name)
            found.append(Gid(index=int(name), gid=gid, type=kind or None, netdev=netdev or None))
    return tuple(found)
