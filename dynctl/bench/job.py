"""What a loader process is told to do, and what it answers: values that go through a pipe."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dynctl.bench.sample import Phase, Sample

ID_PREFIX = "bench-"
"""How the X-Request-Id of every request begins."""


class Shot(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `body`: its JSON; `input_tokens`: its exact length where it was counted beforehand."""

    id: str
    body: bytes
    phase: Phase = "measured"
    asked_tokens: int = 0
    input_tokens: int | None = None


class Session(msgspec.Struct, frozen=True):
    """Turns of one conversation, each sent when the one before has ended. `at_s`: when an open loop sends the first,
    in seconds from the start; None in a closed loop."""

    shots: tuple[Shot, ...]
    at_s: float | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One round for one arm. `concurrency`: slots of a closed loop; of an open loop the cap (0: none).
    `connections`: opened before the first request. `cert`: file of the certificate that is trusted in place of the
    system's list. `head_timeout_s`, `stall_s`: how long an answer may not begin, or stand still. `begin_s`: when it
    starts, by CLOCK_MONOTONIC, so that several loaders start together. `tokenizer`: the model's folder or hub name,
    where it is known."""

    url: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    cert: str | None = None
    sessions: tuple[Session, ...]
    concurrency: int = 0
    connections: int = 1
    head_timeout_s: float = 600.0
    stall_s: float = 60.0
    begin_s: float | None = None
    tokenizer: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the loader itself fared: lag of its event loop (ms, probed every 10 ms), its CPU in cores, wall seconds, and
    bodies' chunks that it read. `late_p99_ms`: how late an open loop sent."""

    lag_p50_ms: float = 0.0
    lag_p99_ms: float = 0.0
    lag_max_ms: float = 0.0
    cpu_cores: float = 0.0
    seconds: float = 0.0
    chunks: int = 0
    cpu_us_per_chunk: float | None = None
    late_p99_ms: float | None = None


def worst(healths: Sequence[Health]) -> Health:
    """The worst of each figure, of several loaders or rounds; the cost of a chunk is that of all together."""
    chunks = sum(health.chunks for health in healths)
    cpu_us = sum(h.cpu_us_per_chunk * h.chunks for h in healths if h.cpu_us_per_chunk is not None)
    return Health(
        lag_p50_ms=max((h.lag_p50_ms for h in healths), default=0.0),
        lag_p99_ms=max((h.lag_p99_ms for h in healths), default=0.0),
        lag_max_ms=max((h.lag_max_ms for h in healths), default=0.0),
        cpu_cores=max((h.cpu_cores for h in healths), default=0.0),
        seconds=max((h.seconds for h in healths), default=0.0),
        chunks=chunks,
        cpu_us_per_chunk=cpu_us / chunks if chunks else None,
        late_p99_ms=max((h.late_p99_ms for h in healths if h.late_p99_ms is not None), default=None),
    )


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Requests ended so far, of how many, and the samples that were worked out since the last report."""

    done: int
    total: int
    fresh: tuple[Sample, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True, tag="result"):
    """The end of a job. `interrupted`: it was stopped before all requests had been sent and answered.
    `gave_up`: the error after which it stopped by itself, since nothing but errors came. `health`: None where who
    measured does not say."""

    samples: tuple[Sample, ...]
    health: Health | None
    interrupted: bool = False
    gave_up: str | None = None
