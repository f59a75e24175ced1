"""The probe children of a proof: started when first needed, again after one died, closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import msgspec

from dynctl.fabric.probe.child import Offer, Opened, ProbeAgent, ProbeError
from dynctl.fabric.probe.ends import Direction, End, Transfer
from dynctl.fabric.probe.judge import Failure, Moves
from dynctl.fabric.ucx_log import UcxReader

TOGETHER = 8
"""Children that start at the same time."""
WARM_UP_BYTES = 64 << 10
"""What an agent moves first, to connect."""
SLOWEST_BYTES_PER_S = 50e6
DEADLINE_S = 10.0
WORD_BYTES = 4
"""port_xmit_data counts words of that many bytes."""


class Outcome(msgspec.Struct, frozen=True):
    """What came of one transfer; the log of the end that moved it; what each NIC sent meanwhile, None without NICs."""

    moves: Moves | Failure
    reader: UcxReader
    sent_bytes: dict[str, int] | None = None


class Bench:
    """Children by end. What is known of each is kept by the end's id, also after it was closed."""

    def __init__(self, root: Path) -> None:
        self.opened: dict[str, Opened] = {}
        self.resources: dict[str, tuple[str, ...]] = {}
        self.readers: dict[str, UcxReader] = {}
        self.failures: dict[str, Failure] = {}
        self._root = root
        self._agents: dict[str, ProbeAgent] = {}
        self._offers: dict[str, Offer] = {}
        self._starts = asyncio.Semaphore(TOGETHER)

    async def __aenter__(self) -> Bench:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every child and reads the rest of what it wrote."""
        await asyncio.gather(*(self._end(end_id) for end_id in list(self._agents)))

    async def start(self, end: End) -> None:
        """Starts that end's child, and asks what its UCX finds. A failure is kept, and not tried again."""
        async with self._starts:
            agent = ProbeAgent(end.id, end.python, end.env, cpus=end.cpus, memory=end.memory)
            try:
                self.opened[end.id] = await agent.start()
                self._agents[end.id] = agent
            except ProbeError as error:
                self.failures[end.id] = Failure(kind=error.kind, text=error.text)
            if end.id not in self.resources and self.failures.get(end.id, _FINE).kind in ("", "backend"):
                with contextlib.suppress(ProbeError):
                    self.resources[end.id] = await agent.resources()
            if end.id in self.failures:
                await agent.close()
                self._keep(end.id, agent.unread())

    async def move(self, transfer: Transfer, direction: Direction, repeats: Mapping[int, int]) -> Outcome:
        """Moves each size so many times, the sizes ascending."""
        mover, other = transfer.target, transfer.source
        if direction == "write":
            mover, other = other, mover
        for end in (mover, other):
            if end.id not in self._agents and end.id not in self.failures:
                await self.start(end)
            if end.id in self.failures:
                return Outcome(self.failures[end.id], self.readers.get(end.id, UcxReader(end.id)))
        nics = dict.fromkeys((*mover.nics, *other.nics))
        try:
            before = sent_bytes(self._root, nics)
            durations = await self._moved(mover, other, direction, repeats)
            after = sent_bytes(self._root, nics)
            reader = self._keep(mover.id, await self._agents[mover.id].leave())
        except ProbeError as error:
            for end in (mover, other):
                await self._end(end.id)  # the next transfer gets new ones
            return Outcome(Failure(kind=error.kind, text=error.text), self.readers[mover.id])
        self._offers.pop(mover.id, None)  # void since it left
        moves = Moves(durations_us=durations, extra=1, extra_bytes=min(*repeats, WARM_UP_BYTES))
        return Outcome(moves, reader, {nic: after[nic] - before[nic] for nic in after if nic in before} or None)

    async def _moved(
        self, mover: End, other: End, direction: Direction, repeats: Mapping[int, int]
    ) -> dict[int, tuple[float, ...]]:
        agent, peer, largest = self._agents[mover.id], self._agents[other.id], max(repeats)
        if other.id not in self._offers:
            # both ends lay their memory out at the same time
            self._offers[other.id], _ = await asyncio.gather(peer.offer(largest), agent.offer(largest))
        durations = {}
        for size, times in sorted(repeats.items()):
            deadline_s = DEADLINE_S + size * times / SLOWEST_BYTES_PER_S
            moved = await agent.move(self._offers[other.id], direction, size, times, deadline_s=deadline_s)
            durations[size] = moved.durations_us
            if direction == "write":
                await peer.arrived(agent.name, size)
        if direction == "write":
            del self._offers[other.id]  # written over
        return durations

    async def _end(self, end_id: str) -> None:
        self._offers.pop(end_id, None)
        if agent := self._agents.pop(end_id, None):
            await agent.close()
            self._keep(end_id, agent.unread())

    def _keep(self, end_id: str, lines: Iterable[str]) -> UcxReader:
        """Reads these lines into what is known of that end, and into a reader of their own."""
        own, kept = UcxReader(end_id), self.readers.setdefault(end_id, UcxReader(end_id))
        for line in lines:
            own.feed(line)
            kept.feed(line)
        return own


_FINE = Failure(kind="", text="")


def sent_bytes(root: Path, nics: Iterable[str]) -> dict[str, int]:
    """Bytes that each NIC has sent over all its ports; those left out whose counters can't be read."""
    found: dict[str, int] = {}
    for nic in nics:
        counters = (root / "sys/class/infiniband" / nic / "ports").glob("*/counters/port_xmit_data")
        with contextlib.suppress(OSError, ValueError):
            found[nic] = sum(int(path.read_text()) * WORD_BYTES for path in counters)
    return found
