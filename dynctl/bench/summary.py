"""Percentiles of one metric, and the figures of one round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from dynctl.bench.sample import PER_REQUEST, Sample, gaps_ms, meets

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A metric's distribution. Percentiles are interpolated linearly, as NumPy's, aiperf's and vLLM's are."""

    count: int
    avg: float
    min: float
    max: float
    std: float
    sum: float
    p1: float
    p5: float
    p10: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One arm's share of a round: its samples of all phases, its number, and the start-up that it was measured in."""

    number: int
    start_up: int = 0
    samples: tuple[Sample, ...] = ()
    interrupted: bool = False

    @property
    def measured(self) -> tuple[Sample, ...]:
        """The samples that count: served whole."""
        return tuple(sample for sample in self.samples if sample.phase == "measured" and sample.served)

    def values(self, metric: str) -> list[float]:
        """The metric of every measured request, or all gaps between chunks for `inter_chunk_ms`."""
        if metric == "inter_chunk_ms":
            return [gap for sample in self.measured for gap in gaps_ms(sample)]
        get = PER_REQUEST[metric]
        return [value for sample in self.measured if (value := get(sample)) is not None]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Throughput while the load was whole: from the first measured request's begin to the last one's end."""

    seconds: float
    requests_per_s: float
    output_tokens_per_s: float
    goodput: float | None = None


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of sorted values, linearly interpolated; IndexError of none."""
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def summary(values: Iterable[float]) -> Summary | None:
    """The distribution of `values`; None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Summary(
        count=len(ordered),
        avg=statistics.fmean(ordered),
        min=ordered[0],
        max=ordered[-1],
        std=statistics.pstdev(ordered),
        sum=sum(ordered),
        **{f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES},
    )


def rates(part: Round, slo_ms: dict[str, float] | None = None) -> Rates | None:
    """Requests and tokens of the window, of whatever phase; each request by the share of its time that lies within it.

    Ends alone would count too many where streams run in step: all that end with the one which opens the window.
    `goodput`: good requests per second. None when nothing was measured.
    """
    measured = part.measured
    if not measured:
        return None
    begin_s, end_s = min(s.sent_s for s in measured), max(s.chunk_s[-1] for s in measured)
    seconds = end_s - begin_s
    if seconds <= 0:
        return None
    served = [s for s in part.samples if s.served]
    shares = [(s, _share(s.sent_s, s.chunk_s[-1], begin_s, end_s)) for s in served]
    tokens = 0.0
    for sample in served:
        inside = sum(1 for at in sample.chunk_s if begin_s < at <= end_s)
        tokens += sample.tokens * inside / len(sample.chunk_s)
    requests = sum(share for _, share in shares)
    good = sum(share for sample, share in shares if meets(sample, slo_ms)) / seconds if slo_ms else None
    return Rates(seconds=seconds, requests_per_s=requests / seconds, output_tokens_per_s=tokens / seconds, goodput=good)


def _share(sent_s: float, last_s: float, begin_s: float, end_s: float) -> float:
    """How much of a request's time lies in the window, from 0 to 1."""
    if last_s <= sent_s:
        return float(begin_s < last_s <= end_s)
    return max(0.0, min(last_s, end_s) - max(sent_s, begin_s)) / (last_s - sent_s)
