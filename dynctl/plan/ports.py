"""The port allocator: from a run's name, or a range, and the ports in use to ports, the same ones every time."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from dynctl.errors import HostError, UsageError

FIRST_PORT = 20000
LAST_PORT = 29999
"""Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a planned port."""
WINDOW = 100
CANDIDATES = 512


class PortRange(msgspec.Struct, frozen=True):
    """Ports from `first` to `last`, both of it."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Of `20000-20999`, as the topology has it."""
        first, _, last = text.partition("-")
        return cls(int(first), int(last))

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def candidates(name: str) -> Iterator[int]:
    """Ports a run of that name may take, in order: runs of different names start in different windows."""
    span = LAST_PORT - FIRST_PORT + 1
    for step in range(CANDIDATES):
        yield FIRST_PORT + (_start(name) + step) % span


def default_range(name: str) -> PortRange:
    """The ports that a run of that name has on each of its nodes, unless the topology names others."""
    first = FIRST_PORT + min(_start(name), LAST_PORT - FIRST_PORT + 1 - CANDIDATES)
    return PortRange(first, first + CANDIDATES - 1)


def range_of(name: str, ports: str | None) -> PortRange:
    """The ports of a run of that name on one of its nodes: those that the topology names, else the default."""
    return PortRange.parse(ports) if ports else default_range(name)


def _start(name: str) -> int:
    return zlib.crc32(name.encode()) % ((LAST_PORT - FIRST_PORT + 1) // WINDOW) * WINDOW


class PortAllocator:
    """Hands out ports, never the same one twice. `taken` maps ports that can't be had to who holds them."""

    def __init__(self, ports: Iterable[int], taken: Mapping[int, str], where: str | None = None) -> None:
        self._free = [port for port in ports if port not in taken]
        self._of, self._where = str(ports) if isinstance(ports, PortRange) else None, where

    @classmethod
    def of_run(cls, name: str, taken: Mapping[int, str]) -> PortAllocator:
        """Of the ports that a run of that name may take on one machine."""
        return cls(candidates(name), taken)

    def take(self, count: int = 1) -> int:
        """The first of `count` consecutive free ports. HostError, or UsageError for a range, when there are none."""
        for at in range(len(self._free) - count + 1):
            run = self._free[at : at + count]
            if run[-1] - run[0] == count - 1:
                del self._free[at : at + count]
                return run[0]
        if self._of:
            raise UsageError(f"the range {self._of} is too small for this node", where=self._where, fix="widen it")
        raise HostError(
            f"no {count} consecutive free ports among the {CANDIDATES} that this run may use",
            why=f"ports are taken from {FIRST_PORT}-{LAST_PORT}",
            fix="end what holds them (`ss -ltnp`), or use fewer workers",
        )
