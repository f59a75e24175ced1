"""One request as it was measured, and the latencies that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import msgspec

Phase = Literal["ramp", "measured", "tail"]
"""Only `measured` requests count; before and after them the same load runs without being counted."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A request's clock readings, in seconds of CLOCK_MONOTONIC.

    `due_s`: when an open loop should have sent it; None in a closed loop. `sent_s`: when it was sent. `chunk_s`: the
    reads that brought content, one entry per chunk. `input_tokens`, `output_tokens`: as the server's `usage` says, None
    without one. `asked_tokens`: what it was asked for. `error`: why it failed, None when it was served whole.
    """

    id: str
    phase: Phase = "measured"
    due_s: float | None = None
    sent_s: float
    chunk_s: tuple[float, ...] = ()
    end_s: float
    input_tokens: int | None = None
    output_tokens: int | None = None
    asked_tokens: int = 0
    status: int = 200
    error: str | None = None

    @property
    def begin_s(self) -> float:
        """Latency counts from the schedule where there is one, so that a stalled server can't hide (bench.md §2)."""
        return self.sent_s if self.due_s is None else self.due_s

    @property
    def tokens(self) -> int:
        """Output tokens by the server's count; chunks where it gives none."""
        return len(self.chunk_s) if self.output_tokens is None else self.output_tokens

    @property
    def served(self) -> bool:
        """Whether it was answered whole, with at least one chunk of content."""
        return self.error is None and bool(self.chunk_s)


def ttft_ms(sample: Sample) -> float | None:
    """Time to first token: the first chunk whose content is not empty."""
    return (sample.chunk_s[0] - sample.begin_s) * 1000 if sample.chunk_s else None


def ttst_ms(sample: Sample) -> float | None:
    """Time to second token: the second content chunk after the first (aiperf's `time_to_second_token`)."""
    return (sample.chunk_s[1] - sample.chunk_s[0]) * 1000 if len(sample.chunk_s) > 1 else None


def request_latency_ms(sample: Sample) -> float | None:
    """Until the last chunk of content (aiperf's `request_latency`, vLLM's e2el)."""
    return (sample.chunk_s[-1] - sample.begin_s) * 1000 if sample.chunk_s else None


def itl_ms(sample: Sample) -> float | None:
    """(request latency - TTFT) / (output tokens - 1): aiperf's `inter_token_latency`, vLLM's TPOT."""
    if len(sample.chunk_s) < 2 or sample.tokens < 2:
        return None
    return (sample.chunk_s[-1] - sample.chunk_s[0]) * 1000 / (sample.tokens - 1)


def gaps_ms(sample: Sample) -> list[float]:
    """Times between content chunks (aiperf's `inter_chunk_latency`, vLLM's ITL); a chunk may be several tokens."""
    return [(after - before) * 1000 for before, after in pairwise(sample.chunk_s)]


PER_REQUEST: dict[str, Callable[[Sample], float | None]] = {
    "ttft_ms": ttft_ms,
    "ttst_ms": ttst_ms,
    "itl_ms": itl_ms,
    "request_latency_ms": request_latency_ms,
}
"""Latencies that a request has one of. `inter_chunk_ms` is pooled over all requests instead."""


def meets(sample: Sample, slo_ms: dict[str, float]) -> bool:
    """Whether a served request kept to every objective (`ttft_ms`, `itl_ms`, `request_latency_ms`)."""
    for name, limit_ms in slo_ms.items():
        value = PER_REQUEST[name](sample)
        if value is not None and value > limit_ms:
            return False
    return sample.served
