"""The TTFT split over a window: medians by the frontend's clock, means from the engines' metrics. Pure."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping

from dynctl.frontend.messages import RequestRecord
from dynctl.telemetry.scrape import COUNTERS, EngineSample
from dynctl.telemetry.status import TtftStatus

WINDOW_S = 60.0
KEPT_RECORDS = 20_000


class EngineWindow:
    """Samples of one engine, reaching back one window."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._samples: deque[EngineSample] = deque()

    def add(self, taken: EngineSample) -> None:
        """Adds a sample; a counter that fell (the engine restarted) begins a new window."""
        if self._samples and any(getattr(taken, name) < getattr(self._samples[-1], name) for name in COUNTERS):
            self._samples.clear()
        self._samples.append(taken)
        while len(self._samples) > 2 and self._samples[1].at < taken.at - self._window_s:
            self._samples.popleft()

    def ends(self) -> tuple[EngineSample, EngineSample] | None:
        """The oldest and newest sample of the window; None until there are two."""
        return (self._samples[0], self._samples[-1]) if len(self._samples) > 1 else None


class RequestWindow:
    """Requests that ended within the last window. Directed ones are dynctl's own proofs and do not count."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._records: deque[tuple[float, RequestRecord]] = deque(maxlen=KEPT_RECORDS)

    def add(self, record: RequestRecord, now: float) -> None:
        """Adds a finished request, seen at monotonic `now`."""
        if not record.directed:
            self._records.append((now, record))

    def recent(self, now: float) -> list[RequestRecord]:
        """The requests of the window that ends now."""
        while self._records and self._records[0][0] < now - self._window_s:
            self._records.popleft()
        return [record for _, record in self._records]

    def rate_per_s(self, now: float) -> float:
        """Requests finished per second, over the last ten seconds."""
        span_s = min(10.0, self._window_s)
        return sum(1 for at, _ in self._records if at >= now - span_s) / span_s


def split(
    records: Iterable[RequestRecord],
    prefills: Iterable[EngineWindow],
    decodes: Iterable[EngineWindow],
    movers: Iterable[EngineWindow],
    window_s: float = WINDOW_S,
) -> TtftStatus:
    """The split of the window. `movers` are the engines that move KV: the decodes when they pull, else the prefills."""
    streamed = [record for record in records if record.ttft_ms is not None]
    ttfts = sorted(record.ttft_ms for record in streamed if record.ttft_ms is not None)
    return TtftStatus(
        p50=percentile(ttfts, 0.50),
        p99=percentile(ttfts, 0.99),
        window_s=window_s,
        requests=len(streamed),
        split={
            "queue": _median(record.queue_ms for record in streamed),
            "prefill": _median(record.prefill_ms for record in streamed),
            "handover": _median(record.handover_ms for record in streamed),
        },
        window=_engine_part(streamed, list(prefills), list(decodes), list(movers)),
    )


def percentile(ordered: list[float], q: float) -> float | None:
    """The value at rank ceil(q * n) of sorted values; None of none."""
    if not ordered:
        return None
    return ordered[max(0, min(len(ordered) - 1, -(-int(q * 100 * len(ordered)) // 100) - 1))]


def median_of_buckets(before: Mapping[float, float], after: Mapping[float, float]) -> float | None:
    """The median of a Prometheus histogram's growth, interpolated within its bucket as histogram_quantile does."""
    grown = sorted((bound, count - before.get(bound, 0.0)) for bound, count in after.items())
    if not grown or grown[-1][1] <= 0:
        return None
    half, lower, below = grown[-1][1] / 2, 0.0, 0.0
    for bound, count in grown:
        if count >= half:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (half - below) / (count - below) if count > below else bound
        lower, below = bound, count
    return None


def _engine_part(
    records: list[RequestRecord],
    prefills: list[EngineWindow],
    decodes: list[EngineWindow],
    movers: list[EngineWindow],
) -> dict[str, float | None]:
    transfer_s, transfers = _growth(movers, "transfer_s"), _growth(movers, "transfers")
    transfer_ms = _ratio_ms(transfer_s, transfers)
    medians = [
        median
        for ends in (window.ends() for window in decodes)
        if ends and (median := median_of_buckets(ends[0].itl_buckets, ends[1].itl_buckets)) is not None
    ]
    first_decode_ms = statistics.fmean(medians) * 1000 if medians else None
    handovers = [r.handover_ms for r in records if r.mode == "disaggregated" and r.handover_ms is not None]
    known = handovers and transfer_ms is not None and first_decode_ms is not None
    return {
        "prefill_queue": _ratio_ms(_growth(prefills, "queue_s"), _growth(prefills, "queued")),
        "prefill_compute": _ratio_ms(_growth(prefills, "prefill_s"), _growth(prefills, "prefills")),
        "transfer": transfer_ms,
        "first_decode": first_decode_ms,
        "unattributed": statistics.fmean(handovers) - (transfer_ms or 0) - (first_decode_ms or 0) if known else None,
        "gigabytes_per_s": _growth(movers, "kv_bytes") / transfer_s / 1e9 if transfer_s > 0 else None,
    }


def _growth(windows: Iterable[EngineWindow], field: str) -> float:
    pairs = [ends for window in windows if (ends := window.ends())]
    return float(sum(getattr(new, field) - getattr(old, field) for old, new in pairs))


def _ratio_ms(seconds: float, count: float) -> float | None:
    return seconds / count * 1000 if count > 0 else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
