"""The interfaces that default routes run over, down to the NICs below bonds, bridges and VLANs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dynctl.hardware import sysfs

LOWER = "lower_"
ZEROS = {"00000000", "0" * 32}


def default_route(root: Path) -> frozenset[str]:
    """Those named by the default routes of IPv4 and IPv6, and all below them (`/sys/class/net/bond0/lower_eth0`)."""
    found: set[str] = set()
    waiting = [*_ipv4(root), *_ipv6(root)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            entries = sysfs.names(root / "sys/class/net" / name)
            waiting += [entry.removeprefix(LOWER) for entry in entries if entry.startswith(LOWER)]
    return frozenset(found)


def _rows(path: Path) -> Iterator[list[str]]:
    yield from (line.split() for line in (sysfs.text(path) or "").splitlines())


def _ipv4(root: Path) -> list[str]:
    """Interface, destination, gateway, flags, ..., mask in the eighth column."""
    return [row[0] for row in _rows(root / "proc/net/route") if len(row) > 7 and row[1] in ZEROS and row[7] in ZEROS]


def _ipv6(root: Path) -> list[str]:
    """Destination, its prefix length, ..., interface in the tenth column; `lo` carries the reject route."""
    rows = _rows(root / "proc/net/ipv6_route")
    return [row[9] for row in rows if len(row) > 9 and row[0] in ZEROS and row[1] == "00" and row[9] != "lo"]
