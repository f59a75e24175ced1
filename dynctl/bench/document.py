"""The result as JSON: what `--json` prints and `--output` keeps. Schema 1 grows only by optional keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from dynctl.bench.job import Health, worst
from dynctl.bench.sample import PER_REQUEST
from dynctl.bench.summary import Round, Summary, rates, summary
from dynctl.bench.verdict import Verdict


class KvFigures(msgspec.Struct, frozen=True, kw_only=True):
    """KV transfers over the run, from the engines' own counters. `share_of_ttft`: mean transfer over mean TTFT."""

    transfers: int
    bytes: int
    mean_ms: float | None = None
    gigabytes_per_s: float | None = None
    share_of_ttft: float | None = None


class WorkerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker did: requests by the frontend's records."""

    id: str
    requests: int


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Where TTFT went: medians by the frontend's clock in `requests` records, means by the engines' metrics in
    `window`. All in milliseconds. `frontend_to_client`: the client's median TTFT less the frontend's."""

    records: int
    ttft: float | None = None
    queue: float | None = None
    prefill: float | None = None
    handover: float | None = None
    frontend_to_client: float | None = None
    window: dict[str, float | None] = {}
    modes: dict[str, int] = {}


class ArmResult(msgspec.Struct, frozen=True, kw_only=True):
    """One layout under one load. `metrics`: percentiles per latency, plain numbers per throughput."""

    layout: str
    target: str
    load: str
    gpus: int = 0
    workers: int = 0
    start_ups: int = 1
    rounds: int = 0
    requests: int = 0
    failed: int = 0
    errors: dict[str, int] = {}
    metrics: dict[str, Summary | float | None] = {}
    split: Split | None = None
    kv: KvFigures | None = None
    worker_load: tuple[WorkerLoad, ...] = ()


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why the result is not valid, and what to do about it."""

    id: str
    what: str
    fix: str


class ClientHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The loader's own state, the worst of all rounds. `valid`: it did not distort what it measured. All null where
    another tool measured, which does not say."""

    valid: bool | None
    lag_p99_ms: float | None
    lag_max_ms: float | None
    cpu_cores: float | None
    cpu_us_per_chunk: float | None
    late_p99_ms: float | None
    chunks: int
    processes: int


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A whole result. `partial`: it was interrupted, and `interrupted_in` says in which phase. `itself`: the baseline
    against itself, where both layouts and that were measured; its ratios are a floor of the comparison's verdicts."""

    schema: int = 1
    kind: str = "bench"
    dynctl_version: str = ""
    at: float = 0.0
    command: tuple[str, ...] = ()
    backend: str = "dynctl"
    partial: bool = False
    interrupted_in: str | None = None
    valid: bool = True
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    workload: dict[str, Any] = {}
    environment: dict[str, Any] = {}
    slo_ms: dict[str, float] = {}
    client_health: ClientHealth
    runs: tuple[ArmResult, ...] = ()
    baseline: str | None = None
    comparison: dict[str, Verdict] = {}
    itself: dict[str, Verdict] = {}
    says: tuple[str, ...] = ()


def arm_metrics(rounds: Sequence[Round], slo_ms: Mapping[str, float], gpus: int) -> dict[str, Summary | float | None]:
    """Percentiles over all rounds' requests together; throughputs are means over rounds."""
    out: dict[str, Summary | float | None] = {}
    for name in (*PER_REQUEST, "inter_chunk_ms"):
        out[name] = summary(value for part in rounds for value in part.values(name))
    found = [rate for part in rounds if (rate := rates(part, dict(slo_ms)))]
    for name in ("requests_per_s", "output_tokens_per_s", "goodput"):
        values = [value for rate in found if (value := getattr(rate, name)) is not None]
        out[name] = sum(values) / len(values) if values else None
    tokens = out["output_tokens_per_s"]
    out["output_tokens_per_s_per_gpu"] = tokens / gpus if gpus and isinstance(tokens, float) else None
    return out


def errors(rounds: Sequence[Round]) -> Counter[str]:
    """What failed, of the requests that count, by its words."""
    return Counter(
        sample.error or "no content"
        for part in rounds
        for sample in part.samples
        if sample.phase == "measured" and not sample.served and sample.error != "stopped"
    )


def client_health(healths: Sequence[Health], processes: int, *, valid: bool) -> ClientHealth:
    """The worst of each figure."""
    if not healths:
        return _unknown(processes)
    found = worst(healths)
    return ClientHealth(
        valid=valid,
        lag_p99_ms=found.lag_p99_ms,
        lag_max_ms=found.lag_max_ms,
        cpu_cores=found.cpu_cores,
        cpu_us_per_chunk=found.cpu_us_per_chunk,
        late_p99_ms=found.late_p99_ms,
        chunks=found.chunks,
        processes=processes,
    )


def _unknown(processes: int) -> ClientHealth:
    return ClientHealth(
        valid=None,
        lag_p99_ms=None,
        lag_max_ms=None,
        cpu_cores=None,
        cpu_us_per_chunk=None,
        late_p99_ms=None,
        chunks=0,
        processes=processes,
    )
