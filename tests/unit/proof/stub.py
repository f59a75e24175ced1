"""A deployment on paper, for the proofs: what it answers and what its counters say follow from a few settings."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from dynctl.fabric.ucx_log import ProtoTable, UcxReader
from dynctl.plan.values import KvShape, PlannedPair
from dynctl.proof.client import Completion
from dynctl.telemetry.scrape import EngineSample

PAIR = PlannedPair(from_="prefill-0", to="decode-0", path="shm", floor="shm", reason="")
SHAPE = KvShape(bytes_per_token=100, block_tokens=16)


class Asked(NamedTuple):
    """One request as it was asked for."""

    prompt: str
    route: str
    salt: str
    max_tokens: int
    logprobs: int | None


class StubClient:
    """Serves every prompt: one token a word, answers that follow from the prompt, bytes for each hand-over."""

    def __init__(self, *, moves: Callable[[Asked], float] | None = None, lag: int = 0) -> None:
        self.asked: list[Asked] = []
        self.sampled: list[str] = []
        self.kv_bytes, self.transfer_s = 5_000.0, 1.0
        self.answer: Callable[[Asked], Completion] = self.honest
        self._moves = moves or (lambda asked: SHAPE.transfer_bytes(words(asked)) if ">" in asked.route else 0)
        self._lag, self._pending = lag, [0.0, 0]

    def honest(self, asked: Asked) -> Completion:
        draw = zlib.crc32(asked.prompt.encode())
        tokens = tuple((draw + at) % 97 for at in range(asked.max_tokens))
        top = tuple({f"t{token}": -0.1, "other": -2.5} for token in tokens) if asked.logprobs else ()
        return Completion(prompt_tokens=words(asked), token_ids=tokens, top_logprobs=top)

    async def complete(
        self, prompt: str, *, route: str, salt: str, max_tokens: int, logprobs: int | None = None
    ) -> Completion:
        asked = Asked(prompt, route, salt, max_tokens, logprobs)
        self.asked.append(asked)
        self._pending = [self._pending[0] + self._moves(asked), self._lag]
        return self.answer(asked)

    async def sample(self, process: str) -> EngineSample:
        """The counters; a hand-over shows in them `lag` samples late."""
        self.sampled.append(process)
        moved, lag = self._pending
        if lag:
            self._pending = [moved, lag - 1]
        else:
            self.kv_bytes += moved
            self.transfer_s += moved / 1e9
            self._pending = [0.0, 0]
        return EngineSample(at=0.0, kv_bytes=self.kv_bytes, transfer_s=self.transfer_s)


def words(asked: Asked) -> int:
    return len(asked.prompt.split())


def tables_of(text: str) -> list[ProtoTable]:
    """UCX's tables in a captured log."""
    reader = UcxReader("ucx.log")
    for line in text.splitlines():
        reader.feed(line)
    return reader.tables
