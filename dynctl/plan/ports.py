"""The port allocator: from a run's name and the ports in use to ports, the same ones every time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

from dynctl.errors import HostError

FIRST_PORT = 20000
LAST_PORT = 29999
"""Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a planned port."""
WINDOW = 100
CANDIDATES = 512


def candidates(name: str) -> Iterator[int]:
    """Ports a run of that name may take, in order: runs of different names start in different windows."""
    span = LAST_PORT - FIRST_PORT + 1
    start = zlib.crc32(name.encode()) % (span // WINDOW) * WINDOW
    for step in range(CANDIDATES):
        yield FIRST_PORT + (start + step) % span


class PortAllocator:
    """Hands out free ports, never the same one twice. `taken` maps ports that can't be bound to who holds them."""

    def __init__(self, name: str, taken: Mapping[int, str]) -> None:
        self._free = [port for port in candidates(name) if port not in taken]

    def take(self, count: int = 1) -> int:
        """The first of `count` consecutive free ports; HostError when there are none left."""
        for at in range(len(self._free) - count + 1):
            run = self._free[at : at + count]
            if run[-1] - run[0] == count - 1:
                del self._free[at : at + count]
                return run[0]
        raise HostError(
            f"no {count} consecutive free ports among the {CANDIDATES} that this run may use",
            why=f"ports are taken from {FIRST_PORT}-{LAST_PORT}",
            fix="end what holds them (`ss -ltnp`), or use fewer workers",
        )
