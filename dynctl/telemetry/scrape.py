"""An engine's Prometheus text as the few numbers that dynctl reads from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import msgspec
from prometheus_client.parser import text_string_to_metric_families

WANTED = (
    "vllm:nixl_bytes_transferred",
    "vllm:nixl_xfer_time_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:request_prefill_time_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)


class EngineSample(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of one engine at `at` (monotonic seconds), summed over its ranks. Times are in seconds.

    `itl_buckets` maps an upper bound in seconds to the cumulative count of inter-token latencies up to it.
    """

    at: float
    kv_bytes: float = 0.0
    transfer_s: float = 0.0
    transfers: float = 0.0
    queue_s: float = 0.0
    queued: float = 0.0
    prefill_s: float = 0.0
    prefills: float = 0.0
    running: float = 0.0
    waiting: float = 0.0
    itl_buckets: dict[float, float] = {}


FIELDS = {
    "vllm:nixl_bytes_transferred_sum": "kv_bytes",
    "vllm:nixl_xfer_time_seconds_sum": "transfer_s",
    "vllm:nixl_xfer_time_seconds_count": "transfers",
    "vllm:request_queue_time_seconds_sum": "queue_s",
    "vllm:request_queue_time_seconds_count": "queued",
    "vllm:request_prefill_time_seconds_sum": "prefill_s",
    "vllm:request_prefill_time_seconds_count": "prefills",
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
}
COUNTERS = tuple(dict.fromkeys(field for field in FIELDS.values() if field not in ("running", "waiting")))
"""Fields that only rise while an engine lives."""


def sample(text: str, at: float) -> EngineSample:
    """Reads `/metrics`. Text that is not Prometheus's gives an empty sample."""
    values: dict[str, float] = {}
    buckets: dict[float, float] = {}
    try:
        for name, labels, value in samples(text, WANTED):
            if name == "vllm:inter_token_latency_seconds_bucket":
                bound = float(labels.get("le", "nan"))
                buckets[bound] = buckets.get(bound, 0.0) + value
            elif field := FIELDS.get(name):
                values[field] = values.get(field, 0.0) + value
    except ValueError:
        return EngineSample(at=at)
    return EngineSample(at=at, itl_buckets=buckets, **values)


def totals(text: str, fields: Iterable[str]) -> dict[str, float]:
    """Only these counters, over all ranks. For what is asked often: a hundredth of the time that `sample` takes."""
    wanted, text = set(fields), f"\n{text}\n"
    found = dict.fromkeys(wanted, 0.0)
    for metric, field in FIELDS.items():
        start = text.find(f"\n{metric}") if field in wanted else -1
        while start >= 0:
            end = text.index("\n", start + 1)
            name, _, value = text[start + 1 : end].rpartition(" ")
            if name.partition("{")[0] == metric:
                with contextlib.suppress(ValueError):
                    found[field] += float(value)
            start = text.find(f"\n{metric}", end)
    return found


def samples(text: str, beginnings: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of the samples whose lines begin so. ValueError for what is not Prometheus's."""
    # the parser is thorough and slow, and an engine exports a thousand lines: only those that matter are parsed
    wanted = "\n".join(line for line in text.splitlines() if line.startswith(beginnings)) + "\n"
    for family in text_string_to_metric_families(wanted):
        for item in family.samples:
            yield item.name, item.labels, item.value
