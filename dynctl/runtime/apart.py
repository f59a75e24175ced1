"""Keeps what dynctl's own requests add to the engines' counters out of the users' figures."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Protocol

from dynctl.proof.client import ProofClient, ProofError
from dynctl.telemetry.scrape import EngineSample

READ_S = 5.0


class Counts(Protocol):
    """The figures that are taken from the engines' counters."""

    def proof(self, process_id: str, now: EngineSample | None, *, begins: bool) -> None:
        """A proof begins or ends there; `now`: its counters, where they can be read."""


@contextlib.asynccontextmanager
async def apart(client: ProofClient, counts: Counts | None, ends: Collection[str]) -> AsyncIterator[None]:
    """What these engines count meanwhile is none of the users' figures."""
    if not counts:
        yield
        return
    before = await _read(client, ends)
    after: dict[str, EngineSample | None] = {}
    for end in ends:
        counts.proof(end, before[end], begins=True)
    try:
        yield
        after = await _read(client, ends)
    finally:
        for end in ends:
            counts.proof(end, after.get(end), begins=False)


async def _read(client: ProofClient, ends: Collection[str]) -> dict[str, EngineSample | None]:
    found = await asyncio.gather(*(_counters(client, end) for end in ends))
    return dict(zip(ends, found, strict=True))


async def _counters(client: ProofClient, process: str) -> EngineSample | None:
    """None where they can't be read: the proof itself says why."""
    try:
        async with asyncio.timeout(READ_S):
            return await client.sample(process)
    except (ProofError, TimeoutError):
        return None
