"""The TTFT split over a window: medians by the frontend's clock, means from the engines' metrics. Pure."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from dynctl.frontend.messages import RequestRecord
from dynctl.telemetry.canaries import OF_CANARY, Canaries
from dynctl.telemetry.scrape import COUNTERS, EngineSample
from dynctl.telemetry.status import TtftStatus

WINDOW_S = 60.0
KEPT_RECORDS = 20_000


class EngineWindow:
    """Samples of one engine, reaching back one window, less what dynctl's own requests added to its counters."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._samples: deque[EngineSample] = deque()
        self._seen: EngineSample | None = None  # as the engine counts, the newest
        self._own = EngineSample(at=0.0)
        self._canaries = Canaries()
        self._proofs = 0  # under way

    @property
    def is_new(self) -> bool:
        """Whether nothing of the engine is known yet."""
        return self._seen is None

    def add(self, taken: EngineSample) -> None:
        """Adds a sample; a counter that fell (the engine restarted) begins a new window."""
        if self._seen and any(getattr(taken, name) < getattr(self._seen, name) for name in COUNTERS):
            self._samples.clear()
            self._own = EngineSample(at=0.0)
            self._canaries.start(_of_canary(taken))
        if self._proofs:
            self._disown(taken)
        else:
            self._disown_canaries(_of_canary(taken))
        self._seen = taken
        if self._canaries.under_way and self._samples:
            return  # it may be counted there already
        own = {name: getattr(taken, name) - getattr(self._own, name) for name in COUNTERS}
        buckets = _less(taken.itl_buckets, self._own.itl_buckets)
        self._samples.append(msgspec.structs.replace(taken, **own, itl_buckets=buckets))
        while len(self._samples) > 2 and self._samples[1].at < taken.at - self._window_s:
            self._samples.popleft()

    def proof(self, now: EngineSample | None, *, begins: bool) -> None:
        """A proof begins or ends there; nothing of the time between counts. None: the counters can't be read."""
        if now:
            self.add(now)
        self._proofs = max(0, self._proofs + (1 if begins else -1))

    def _disown(self, taken: EngineSample) -> None:
        """Everything since the engine was last seen."""
        if self._seen:
            own, seen = self._own, self._seen
            grown = {name: getattr(own, name) + getattr(taken, name) - getattr(seen, name) for name in COUNTERS}
            buckets = _sum(own.itl_buckets, _less(taken.itl_buckets, seen.itl_buckets))
            self._own = msgspec.structs.replace(own, **grown, itl_buckets=buckets)
        self._canaries.start(_of_canary(taken))

    def canary_begins(self) -> None:
        """A canary is sent there."""
        self._canaries.begins()

    def canary_ends(self, now: Mapping[str, float] | None, *, answered: bool) -> None:
        """It has ended; `now`: the engine's counters (OF_CANARY) after it, where they could be read."""
        self._canaries.ends(answered=answered and not self._proofs)
        if now is not None and not self._proofs:
            self._disown_canaries(now)

    def _disown_canaries(self, now: Mapping[str, float]) -> None:
        added = self._canaries.added(now)
        own = {name: getattr(self._own, name) + value for name, value in added.items()}
        self._own = msgspec.structs.replace(self._own, **own)

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
        split=_parts(streamed)
        or {
            "queue": _median(record.queue_ms for record in streamed),
            "prefill": _median(record.prefill_ms for record in streamed),
            "handover": _median(record.handover_ms for record in streamed),
        },
        window=_engine_part(streamed, list(prefills), list(decodes), list(movers)),
    )


def _parts(records: list[RequestRecord]) -> dict[str, float | None]:
    """Medians of what another router measured; nothing where the frontend is dynctl's own."""
    names = dict.fromkeys(name for record in records for name in record.parts)
    return {name: _median(record.parts.get(name) for record in records) for name in names}


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


def _of_canary(taken: EngineSample) -> dict[str, float]:
    return {name: getattr(taken, name) for name in OF_CANARY}


def _less(buckets: Mapping[float, float], others: Mapping[float, float]) -> dict[float, float]:
    return {bound: count - others.get(bound, 0.0) for bound, count in buckets.items()}


def _sum(buckets: Mapping[float, float], others: Mapping[float, float]) -> dict[float, float]:
    return {bound: buckets.get(bound, 0.0) + count for bound, count in others.items()}


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
