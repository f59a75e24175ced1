"""Proves one prefill-decode pair: a directed request is served, its KV bytes move, the transport is named."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec

from dynctl.fabric.ucx_log import ProtoTable
from dynctl.fabric.verdict import verdict
from dynctl.plan.values import KvShape, PlannedPair, mover
from dynctl.proof.client import Completion, ProofClient, ProofError
from dynctl.proof.prompt import prompt
from dynctl.telemetry.scrape import EngineSample
from dynctl.telemetry.status import PairStatus

PROOF_TOKENS = 4
PROOF_WORDS = 64
SETTLE_S = 15.0
POLL_S = 0.05
DEFAULT_BLOCK_TOKENS = 128
UNKNOWN_BLOCK_TOKENS = 512
"""Generous upper bound of a block where only the engine knows its size."""


class PairProver(msgspec.Struct, frozen=True, kw_only=True):
    """What a pair's proof needs. `tables` reads the protocol tables that a worker's UCX has written so far.

    `shared`: users' requests move bytes at the same time, so that there is a least but no most to be expected. `parts`:
    of a worker on several nodes those besides its leader, which move KV of their own. `simulated`: no KV moves, and
    that the two have served is all there is to be proven.
    """

    client: ProofClient
    kv: KvShape
    direction: str
    tables: Callable[[str], Awaitable[Sequence[ProtoTable]]]
    shared: bool = False
    parts: Mapping[str, tuple[str, ...]] = {}
    simulated: bool = False

    def mover(self, pair: PlannedPair) -> str:
        """The process whose counters and UCX log show this pair's transfers."""
        return mover(pair, self.direction)

    async def prove(self, pair: PlannedPair) -> PairStatus:
        """Two requests: the first pays for connections, the second's transfer gives the rate. Raises ProofError."""
        mover = self.mover(pair)
        if self.simulated:
            await self._request(pair)
            return PairStatus(from_=pair.from_, to=pair.to)
        known = {name: len(await self.tables(name)) for name in (mover, *self.parts.get(mover, ()))}
        moved, rate = await self._move(pair, mover)
        tables = await self._evidence(known)
        found, evidence = verdict(tables, direction="pull" if self.direction == "pull" else "push", transfer_bytes=None)
        return PairStatus(
            from_=pair.from_,
            to=pair.to,
            verdict=found,
            bytes=moved,
            gigabytes_per_s=rate,
            evidence=evidence,
        )

    async def _move(self, pair: PlannedPair, mover: str) -> tuple[int | None, float | None]:
        """Bytes of two hand-overs, and the rate of the second; None where the engine does not count them."""
        if not self.kv.counted:
            await self._request(pair)
            await self._request(pair)
            return None, None
        cold_bytes, _ = await self._transfer(pair, mover)
        warm_bytes, rate = await self._transfer(pair, mover)
        return cold_bytes + warm_bytes, rate

    async def _transfer(self, pair: PlannedPair, mover: str) -> tuple[int, float | None]:
        """Serves one fresh prompt over the pair; the bytes it moved and their rate."""
        before = await self.client.sample(mover)
        answer = await self._request(pair)
        least, most = expected_bytes(self.kv, answer.prompt_tokens)
        after = await settled(self.client, mover, before, least)
        moved = int(after.kv_bytes - before.kv_bytes)
        check_bytes(f"{pair.from_} -> {pair.to}", moved, least, 0 if self.shared else most)
        spent_s = after.transfer_s - before.transfer_s
        return moved, moved / spent_s / 1e9 if spent_s > 0 else None

    async def _request(self, pair: PlannedPair) -> Completion:
        seed = secrets.token_hex(8)
        route = f"{pair.from_}>{pair.to}"
        return await self.client.complete(prompt(seed, PROOF_WORDS), route=route, salt=seed, max_tokens=PROOF_TOKENS)

    async def _evidence(self, known: Mapping[str, int]) -> list[ProtoTable]:
        """Of each part that moves KV the tables written since the proof began; `known`: how many it had then."""
        deadline = time.monotonic() + SETTLE_S
        found = [await self._tables_of(part, before, deadline) for part, before in known.items()]
        return [table for tables in found for table in tables]

    async def _tables_of(self, part: str, known: int, deadline: float) -> list[ProtoTable]:
        """UCX prints a choice once, so a pair like an earlier one adds none: then those that are there count."""
        operation = "get" if self.direction == "pull" else "put"
        while True:
            every = await self.tables(part)
            tables = [t for t in every if t.endpoint != "self" and t.operation == operation]
            if tables or time.monotonic() > deadline:
                fresh = [table for table in every[known:] if table in tables]
                return fresh or tables
            await asyncio.sleep(POLL_S)


def expected_bytes(kv: KvShape, tokens: int) -> tuple[int, int]:
    """Least and most KV bytes that a hand-over of `tokens` prompt tokens may move; most is 0 where it is not known."""
    if not kv.bytes_per_token:
        return 1, 0
    if kv.block_tokens:
        return kv.transfer_bytes(tokens), kv.transfer_bytes(tokens)
    # the tail block's size is the engine's secret
    return (tokens - UNKNOWN_BLOCK_TOKENS) * kv.bytes_per_token, (tokens + UNKNOWN_BLOCK_TOKENS) * kv.bytes_per_token


def check_bytes(pair: str, moved: int, least: int, most: int) -> None:
    """ProofError unless `moved` lies within what was expected."""
    if moved < max(1, least) or (most and moved > most):
        wanted = f"{least:,}" if least == most else f"{least:,} to {most:,}" if most else "some"
        raise ProofError(f"{pair}: {moved:,} KV bytes moved, {wanted} expected")


async def settled(client: ProofClient, process: str, before: EngineSample, least: int) -> EngineSample:
    """The engine's counters once they show the transfer, or as they are after a deadline."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        now = await client.sample(process)
        if now.kv_bytes - before.kv_bytes >= max(1, least) or time.monotonic() > deadline:
            return now
        await asyncio.sleep(POLL_S)
