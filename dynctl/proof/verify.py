"""Proof of correctness: prefill -> decode and decode alone must give the same greedy tokens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable

import msgspec

from dynctl.plan.values import KvShape, PlannedPair
from dynctl.proof.client import Completion, ProofClient, ProofError
from dynctl.proof.pair import DEFAULT_BLOCK_TOKENS, check_bytes, expected_bytes, settled
from dynctl.proof.prompt import same_length_prompts

PROMPTS = 3
OUTPUT_TOKENS = 16
ALTERNATIVES = 5


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """Where two greedy runs part: token position, both tokens, and how far apart decode alone saw them (nats)."""

    prompt: int
    position: int
    disaggregated: int | None
    alone: int | None
    logprob_gap: float | None = None

    def text(self) -> str:
        """The divergence in words."""
        gap = "" if self.logprob_gap is None else f", log-probability gap {self.logprob_gap:.3f}"
        return (
            f"prompt {self.prompt}: token {self.position} is {self.disaggregated} through prefill -> decode "
            f"and {self.alone} by decode alone{gap}"
        )


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared over one pair, and the first divergence of each prompt that had one."""

    pair: str
    prompts: int
    tokens: int
    kv_bytes: int
    divergences: tuple[Divergence, ...] = ()


async def verify_pair(
    client: ProofClient, pair: PlannedPair, kv: KvShape, *, mover: str, prompts: int = PROMPTS, weigh: bool = True
) -> Verification:
    """Runs the same prompts (two KV blocks and more, at once) both ways. ProofError if bytes move that should not.

    With `weigh`, divergences are weighed by log-probability.

    Each pass has its own cache salt: with a shared one, decode's prefix cache would serve the second from the first.
    """
    seed, words = secrets.token_hex(8), 2 * (kv.block_tokens or DEFAULT_BLOCK_TOKENS) + 16
    texts = same_length_prompts(seed, words, prompts)
    start = await client.sample(mover)
    handed = await _pass(client, texts, route=f"{pair.from_}>{pair.to}", salt=f"{seed}-handed")
    bounds = [expected_bytes(kv, answer.prompt_tokens) for answer in handed]
    least, most = sum(low for low, _ in bounds), sum(high for _, high in bounds)
    middle = await settled(client, mover, start, least)
    name = f"{pair.from_} -> {pair.to}"
    check_bytes(name, int(middle.kv_bytes - start.kv_bytes), least, most)
    alone = await _pass(client, texts, route=pair.to, salt=f"{seed}-alone")
    end = await client.sample(mover)
    if end.kv_bytes != middle.kv_bytes:
        raise ProofError(f"{pair.to} alone: {int(end.kv_bytes - middle.kv_bytes):,} KV bytes moved, none expected")
    found = _divergences(range(prompts), handed, alone)
    if found and weigh:
        found = await _weighed(client, pair, texts, found)
    return Verification(
        pair=name,
        prompts=prompts,
        tokens=sum(len(answer.token_ids) for answer in alone),
        kv_bytes=int(middle.kv_bytes - start.kv_bytes),
        divergences=found,
    )


async def _weighed(
    client: ProofClient, pair: PlannedPair, texts: list[str], found: tuple[Divergence, ...]
) -> tuple[Divergence, ...]:
    """The diverging prompts once more, with log-probabilities: asked for always, they cost each start a compile."""
    again = [texts[divergence.prompt] for divergence in found]
    salt = secrets.token_hex(8)
    handed = await _pass(client, again, route=f"{pair.from_}>{pair.to}", salt=f"{salt}-handed", logprobs=ALTERNATIVES)
    alone = await _pass(client, again, route=pair.to, salt=f"{salt}-alone", logprobs=ALTERNATIVES)
    return _divergences([divergence.prompt for divergence in found], handed, alone) or found


async def _pass(
    client: ProofClient, texts: list[str], *, route: str, salt: str, logprobs: int | None = None
) -> list[Completion]:
    requests = [
        client.complete(text, route=route, salt=salt, max_tokens=OUTPUT_TOKENS, logprobs=logprobs) for text in texts
    ]
    return list(await asyncio.gather(*requests))


def _divergences(indexes: Iterable[int], handed: list[Completion], alone: list[Completion]) -> tuple[Divergence, ...]:
    compared = (first_divergence(at, one, other) for at, one, other in zip(indexes, handed, alone, strict=True))
    return tuple(found for found in compared if found)


def first_divergence(index: int, handed: Completion, alone: Completion) -> Divergence | None:
    """The first token in which the two differ; None when they are the same to the end."""
    if not alone.token_ids:
        return Divergence(prompt=index, position=0, disaggregated=None, alone=None)
    longest = max(len(handed.token_ids), len(alone.token_ids))
    for position in range(longest):
        one = handed.token_ids[position] if position < len(handed.token_ids) else None
        other = alone.token_ids[position] if position < len(alone.token_ids) else None
        if one != other:
            return Divergence(
                prompt=index,
                position=position,
                disaggregated=one,
                alone=other,
                logprob_gap=_gap(handed, alone, position),
            )
    return None


def _gap(handed: Completion, alone: Completion, position: int) -> float | None:
    """How much likelier decode alone found its own token than the other's; None if that is not among its top."""
    if position >= min(len(handed.top_logprobs), len(alone.top_logprobs)):
        return None
    mine, theirs = alone.top_logprobs[position], handed.top_logprobs[position]
    if not mine or not theirs:
        return None
    chosen = max(theirs, key=lambda token: theirs[token])
    return max(mine.values()) - mine[chosen] if chosen in mine else None
