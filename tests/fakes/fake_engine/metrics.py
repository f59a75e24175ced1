"""The metrics of vLLM that dynctl reads, under their names, labels and bucket bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)
_XFER_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 5)
_BYTES = tuple(2 ** (11 + 2 * i) for i in range(12))
_FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
_BETWEEN_TOKENS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_REQUEST_S = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip


class Metrics:
    """One registry for one engine. Seconds and bytes, as in vLLM."""

    def __init__(self, model_name: str) -> None:
        self._registry = CollectorRegistry()
        self._model_name = model_name
        self.running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self.waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self.kv_usage = self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self.generation_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        self.prefix_queries = self._counter("prefix_cache_queries", "Prefix cache queries, in tokens.")
        self.prefix_hits = self._counter("prefix_cache_hits", "Prefix cache hits, in tokens.")
        self.external_queries = self._counter("external_prefix_cache_queries", "External prefix cache queries.")
        self.external_hits = self._counter("external_prefix_cache_hits", "External prefix cache hits.")
        self.first_token_s = self._histogram("time_to_first_token_seconds", "Time to first token.", _FIRST_TOKEN_S)
        self.inter_token_s = self._histogram("inter_token_latency_seconds", "Inter-token latency.", _BETWEEN_TOKENS_S)
        self.e2e_s = self._histogram("e2e_request_latency_seconds", "End-to-end latency.", _REQUEST_S)
        self.queue_s = self._histogram("request_queue_time_seconds", "Time in WAITING phase.", _REQUEST_S)
        self.prefill_s = self._histogram("request_prefill_time_seconds", "Time in PREFILL phase.", _REQUEST_S)
        self.decode_s = self._histogram("request_decode_time_seconds", "Time in DECODE phase.", _REQUEST_S)
        self._success = Counter(
            "vllm:request_success", "Count of finished requests.", ["engine", "finished_reason", "model_name"],
            registry=self._registry,
        )  # fmt: skip
        for reason in ("stop", "length", "abort", "error"):
            self._success.labels("0", reason, model_name)

    def add_nixl(self) -> None:
        """The connector's own metrics, there only where a connector is."""
        self.xfer_s = self._histogram("nixl_xfer_time_seconds", "Transfer duration.", _XFER_S)
        self.post_s = self._histogram("nixl_post_time_seconds", "Transfer post time.", _XFER_S)
        self.bytes = self._histogram("nixl_bytes_transferred", "Bytes per transfer.", _BYTES)
        self.descriptors = self._histogram("nixl_num_descriptors", "Descriptors per transfer.", (10, 100, 1000))
        self.failed_transfers = self._counter("nixl_num_failed_transfers", "Failed transfers.")
        self.failed_notifications = self._counter("nixl_num_failed_notifications", "Failed notifications.")
        self.expired = self._counter("nixl_num_kv_expired_reqs", "Requests whose KV expired.")
        self.late = self._counter("nixl_num_notifications_after_expiry", "Notifications after expiry.")

    def finished(self, reason: str) -> None:
        """Count a request's end: stop, length, abort or error."""
        self._success.labels("0", reason, self._model_name).inc()

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return self._labelled(Gauge(f"vllm:{name}", text, ["engine", "model_name"], registry=self._registry))

    def _counter(self, name: str, text: str) -> Counter:
        return self._labelled(Counter(f"vllm:{name}", text, ["engine", "model_name"], registry=self._registry))

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return self._labelled(
            Histogram(f"vllm:{name}", text, ["engine", "model_name"], registry=self._registry, buckets=buckets)
        )

    def _labelled(self, metric: _Metric) -> _Metric:
        return metric.labels("0", self._model_name)
