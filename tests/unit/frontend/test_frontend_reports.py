"""What the frontend tells of its requests: metrics, and reports to the supervisor."""

from __future__ import annotations

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from worker_tables import known

from dynctl.frontend.busy import Busy
from dynctl.frontend.messages import Report, RequestRecord
from dynctl.frontend.metrics import Metrics
from dynctl.frontend.outbox import Outbox


def record(**changes: object) -> RequestRecord:
    members: dict[str, object] = {
        "id": "r",
        "at": 1.0,
        "path": "/v1/completions",
        "mode": "disaggregated",
        "status": 200,
        "streamed": True,
        "queue_ms": 1.0,
        "prefill_ms": 40.0,
        "handover_ms": 59.0,
        "ttft_ms": 100.0,
        **changes,
    }
    return msgspec.convert(members, RequestRecord)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_metrics_text() -> None:
    metrics = Metrics(known("prefill-0=down", "decode-0=ready"))
    metrics.finished(record(), "/v1/completions")
    metrics.finished(record(directed=True), "/v1/completions")
    metrics.finished(record(status=502, ttft_ms=None, error="x"), "/v1/completions")
    metrics.degraded("no_prefill")
    metrics.window({"transfer": 6.5, "first_decode": None, "gigabytes_per_s": 1.5})
    metrics.in_flight = 3
    seen = samples(metrics)
    labels = {"path": "/v1/completions", "mode": "disaggregated"}
    assert seen["dynctl_requests_total", frozenset({**labels, "status": "200"}.items())] == 1
    assert seen["dynctl_requests_total", frozenset({**labels, "status": "502"}.items())] == 1
    assert seen["dynctl_directed_requests_total", frozenset({("status", "200")})] == 1
    assert seen["dynctl_requests_in_flight", frozenset()] == 3
    mode = frozenset({("mode", "disaggregated")})
    for name, total in (("ttft", 0.1), ("ttft_queue", 0.001), ("ttft_prefill", 0.04), ("ttft_handover", 0.059)):
        assert seen[f"dynctl_{name}_seconds_count", mode] == 1
        assert seen[f"dynctl_{name}_seconds_sum", mode] == pytest.approx(total)
    assert seen["dynctl_ttft_seconds_bucket", mode | {("le", "0.1")}] == 1
    assert seen["dynctl_ttft_seconds_bucket", mode | {("le", "0.05")}] == 0
    assert seen["dynctl_ttft_seconds_bucket", mode | {("le", "+Inf")}] == 1
    assert seen["dynctl_ttft_window_seconds", frozenset({("part", "transfer")})] == 0.0065
    assert ("dynctl_ttft_window_seconds", frozenset({("part", "first_decode")})) not in seen
    assert seen["dynctl_workers", frozenset({("role", "decode"), ("state", "ready")})] == 1
    assert seen["dynctl_workers", frozenset({("role", "prefill"), ("state", "down")})] == 1
    assert seen["dynctl_degraded", frozenset()] == 1
    assert seen["dynctl_degraded_requests_total", frozenset({("reason", "no_prefill")})] == 1
    assert (metrics.requests_total, metrics.errors_total) == (2, 1)


def test_outbox_reports_changes_once_and_keeps_what_did_not_get_through() -> None:
    workers = known("decode-0=ready")
    metrics = Metrics(workers)
    outbox = Outbox(workers, metrics, Busy())
    first = outbox.take()
    assert first == Report(health="ok")
    assert outbox.take() is None
    outbox.add(record(id="a"))
    report = outbox.take()
    assert report is not None
    outbox.add(record(id="b"))
    outbox.put_back(report)
    again = outbox.take()
    assert again is not None
    assert [r.id for r in again.requests] == ["a", "b"]
    outbox.reset()
    assert outbox.take() is not None


def test_outbox_is_bounded() -> None:
    workers = known("decode-0=ready")
    outbox = Outbox(workers, Metrics(workers), Busy())
    for number in range(10_500):
        outbox.add(record(id=str(number)))
    ids = []
    while (report := outbox.take()) is not None:
        assert len(report.requests) <= 1000
        ids += [r.id for r in report.requests]
        if not report.requests:
            break
    assert ids == [str(number) for number in range(500, 10_500)]
