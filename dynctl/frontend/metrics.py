"""What `/metrics` shows: cheap counters of our own, put into Prometheus text by prometheus_client when scraped."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from dynctl.frontend import merge
from dynctl.frontend.busy import Busy
from dynctl.frontend.messages import RequestRecord
from dynctl.frontend.workers import Workers

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
_PARTS = {
    "ttft_ms": ("dynctl_ttft_seconds", "Time from the complete request to its first content"),
    "queue_ms": ("dynctl_ttft_queue_seconds", "Part of TTFT: admission, until a leg is sent"),
    "prefill_ms": ("dynctl_ttft_prefill_seconds", "Part of TTFT: leg one, or the only leg"),
    "handover_ms": ("dynctl_ttft_handover_seconds", "Part of TTFT: leg two, sent to first content"),
    "itl_ms": (
        "dynctl_itl_seconds",
        "Time between two events of a stream: of each request the mean after first content",
    ),
}


class Histogram:
    """Counts per bucket and a sum; an observation costs a bisection."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus has them."""
        total, out = 0, []
        for bound, count in zip((*BUCKETS_S, float("inf")), self.counts, strict=True):
            total += count
            out.append(("+Inf" if bound == float("inf") else repr(bound), float(total)))
        return out


class Metrics:
    """Everything that is counted. It is a collector of prometheus_client. `clock` is monotonic, in seconds."""

    def __init__(
        self, workers: Workers, busy: Busy | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workers = workers
        self._busy = busy or Busy()
        self._clock = clock
        self._health = dict.fromkeys(("ok", "degraded", "down"), 0.0)
        self._status, self._since = workers.health().status, clock()
        self._legs: Counter[tuple[str, str, str]] = Counter()
        self._leg_seconds: dict[tuple[str, str], Histogram] = {}
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._directed: Counter[str] = Counter()
        self._degraded: Counter[str] = Counter()
        self._retries: Counter[tuple[str, str]] = Counter()
        self._budget_exhausted = 0
        self._resumed = 0
        self._ttft: dict[tuple[str, str], Histogram] = {}
        self._window: dict[str, float | None] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        self.in_flight = 0
        self.requests_total = 0
        self.errors_total = 0

    def also(self, collector: Collector) -> None:
        """Show its metrics too."""
        self._registry.register(collector)

    def finished(self, record: RequestRecord, path_label: str) -> None:
        """Count a finished request; directed ones, dynctl's own proofs, are none of the users'."""
        if record.directed:
            self._directed[str(record.status)] += 1
            return
        self.requests_total += 1
        if record.status >= 500 or (record.error is not None and record.status < 400):
            self.errors_total += 1
        self._requests[path_label, record.mode, str(record.status)] += 1
        if record.ttft_ms is None:
            return
        for part in _PARTS:
            value_ms: float | None = getattr(record, part)
            if value_ms is not None:
                histogram = self._ttft.get((part, record.mode))
                if histogram is None:
                    histogram = self._ttft[part, record.mode] = Histogram()
                histogram.observe(value_ms / 1000)

    def leg(self, leg: str, worker: str, outcome: str, seconds: float) -> None:
        """Count a leg that is over. `outcome`: `ok`, `refused` (4xx), `left` (the client did), or one of retry's."""
        self._legs[leg, worker, outcome] += 1
        if outcome == "ok":
            histogram = self._leg_seconds.get((leg, worker))
            if histogram is None:
                histogram = self._leg_seconds[leg, worker] = Histogram()
            histogram.observe(seconds)

    def health_moved(self) -> None:
        """What can be served may be another from now on."""
        now = self._clock()
        self._health[self._status] += now - self._since
        self._status, self._since = self._workers.health().status, now

    def degraded(self, reason: str) -> None:
        """Count a request that decode served alone although it was to be handed over."""
        self._degraded[reason] += 1

    def retried(self, leg: str, reason: str) -> None:
        """Count a leg that is sent anew: `leg` is the role of the worker that failed, `reason` one of retry's."""
        self._retries[leg, reason] += 1

    def budget_exhausted(self) -> None:
        """Count a request that was refused instead of being tried again."""
        self._budget_exhausted += 1

    def resumed(self) -> None:
        """Count a stream that another worker carries on."""
        self._resumed += 1

    def window(self, figures: dict[str, float | None]) -> None:
        """Take the supervisor's latest windowed figures."""
        self._window = figures

    def text(self) -> bytes:
        """The metrics in Prometheus text format 0.0.4."""
        return generate_latest(self._registry)

    def part(self) -> merge.Part:
        """The same, to be added to that of other processes."""
        return merge.part(self._registry.collect())

    def collect(self) -> Iterable[Metric]:
        """For prometheus_client: called once per scrape."""
        requests = CounterMetricFamily("dynctl_requests", "Finished requests", labels=["path", "mode", "status"])
        for labels, count in self._requests.items():
            requests.add_metric(labels, count)
        yield requests
        directed = CounterMetricFamily("dynctl_directed_requests", "Dynctl's own proofs of pairs", labels=["status"])
        for status, count in self._directed.items():
            directed.add_metric([status], count)
        yield directed
        yield GaugeMetricFamily("dynctl_requests_in_flight", "Requests under way", value=self.in_flight)
        yield from self._collect_legs()
        yield from self._collect_retries()
        yield from self._collect_ttft()
        yield from self._collect_health()

    def _collect_legs(self) -> Iterable[Metric]:
        legs = CounterMetricFamily(
            "dynctl_legs", "Legs sent to workers, by how they ended", labels=["leg", "worker", "outcome"]
        )
        for (leg, worker, outcome), count in self._legs.items():
            legs.add_metric([leg, worker, outcome], count)
        yield legs
        seconds = HistogramMetricFamily(
            "dynctl_leg_seconds", "Legs that ended well: from sent until the answer is whole", labels=["leg", "worker"]
        )
        for (leg, worker), histogram in self._leg_seconds.items():
            seconds.add_metric([leg, worker], histogram.buckets(), histogram.sum)
        yield seconds
        busy = self._busy.counts()
        ready = GaugeMetricFamily("dynctl_worker_ready", "1 while it gets requests", labels=["worker", "role"])
        flying = GaugeMetricFamily(
            "dynctl_worker_requests_in_flight", "Requests under way in it", labels=["worker", "role"]
        )
        for one in self._workers.all():
            ready.add_metric([one.id, one.role], int(one.state == "ready"))
            flying.add_metric([one.id, one.role], busy.get(one.id, 0))
        yield from (ready, flying)

    def _collect_retries(self) -> Iterable[Metric]:
        retries = CounterMetricFamily(
            "dynctl_retries", "Legs sent anew, by the role of the worker that failed", labels=["leg", "reason"]
        )
        for labels, count in self._retries.items():
            retries.add_metric(labels, count)
        yield retries
        yield CounterMetricFamily(
            "dynctl_retry_budget_exhausted",
            "Requests refused because too many were being tried again",
            value=self._budget_exhausted,
        )
        yield CounterMetricFamily(
            "dynctl_resumed_streams",
            "Streams that another worker carried on",
            value=self._resumed,
        )

    def _collect_ttft(self) -> Iterable[Metric]:
        for part, (name, text) in _PARTS.items():
            family = HistogramMetricFamily(name, text, labels=["mode"])
            for (kind, mode), histogram in self._ttft.items():
                if kind == part:
                    family.add_metric([mode], histogram.buckets(), histogram.sum)
            yield family
        window = GaugeMetricFamily(
            "dynctl_ttft_window_seconds",
            "TTFT taken apart by the engines' own metrics, mean over a window",
            labels=["part"],
        )
        for figure, value in self._window.items():
            if value is not None and figure != "gigabytes_per_s":
                window.add_metric([figure], value / 1000)
        yield window
        rate = self._window.get("gigabytes_per_s")
        if rate is not None:
            name = "dynctl_kv_transfer_bytes_per_second"
            yield GaugeMetricFamily(name, "KV transfer rate over a window", rate * 1e9)

    def _collect_health(self) -> Iterable[Metric]:
        workers = GaugeMetricFamily("dynctl_workers", "Workers by role and state", labels=["role", "state"])
        for labels, count in Counter((w.role, w.state) for w in self._workers.all()).items():
            workers.add_metric(labels, count)
        yield workers
        status = self._workers.health().status
        yield GaugeMetricFamily("dynctl_degraded", "1 while served otherwise than planned", int(status == "degraded"))
        self.health_moved()
        spent = CounterMetricFamily("dynctl_health_seconds", "Time spent in each state of health", labels=["status"])
        for name, seconds in self._health.items():
            spent.add_metric([name], seconds)
        yield spent
        yield GaugeMetricFamily("dynctl_up", "1 while requests can be served", int(status != "down"))
        fallbacks = CounterMetricFamily(
            "dynctl_degraded_requests",
            "Requests that decode served alone although planned otherwise",
            labels=["reason"],
        )
        for reason, count in self._degraded.items():
            fallbacks.add_metric([reason], count)
        yield fallbacks
