"""A line of the trace that Dynamo's frontend writes of each request that ended, as a record. Pure.

`prefill_wait_time_ms` and `prefill_time_ms` add up to `ttft_ms`: the second lasts until the first token, which with
mockers is the prefill worker's, so that the hand-over is not in it. `kv_transfer_estimated_latency_ms` is Dynamo's
estimate, no measurement.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from dynctl.frontend.messages import RequestRecord


class _Worker(msgspec.Struct, frozen=True):
    prefill_worker_id: int | None = None
    decode_worker_id: int | None = None


class _Request(msgspec.Struct, frozen=True):
    request_id: str
    request_received_ms: float = 0.0
    prefill_wait_time_ms: float | None = None
    prefill_time_ms: float | None = None
    kv_transfer_estimated_latency_ms: float | None = None
    ttft_ms: float | None = None
    total_time_ms: float = 0.0
    output_tokens: int | None = None
    worker: _Worker = _Worker()


class _Event(msgspec.Struct, frozen=True):
    event_type: str
    request: _Request | None = None


class _Line(msgspec.Struct, frozen=True):
    event: _Event


def record_of(line: bytes, workers: Mapping[int, str]) -> RequestRecord | None:
    """The request of that line; None for a line that is of no request. `workers`: process ids by Dynamo's ids."""
    try:
        event = msgspec.json.decode(line, type=_Line).event
    except msgspec.DecodeError:
        return None
    if event.event_type != "request_end" or (asked := event.request) is None:
        return None
    prefill, decode = (_process(number, workers) for number in (asked.worker.prefill_worker_id, _decode(asked.worker)))
    parts = {
        "prefill_wait": asked.prefill_wait_time_ms,
        "prefill_to_first_token": asked.prefill_time_ms,
        "kv_transfer_estimate": asked.kv_transfer_estimated_latency_ms or None,
    }
    apart = prefill is not None and prefill != decode
    return RequestRecord(
        id=asked.request_id,
        at=asked.request_received_ms / 1000,
        path="",
        mode="disaggregated" if apart else "aggregated",
        status=200 if asked.ttft_ms is not None else 500,
        streamed=True,
        prefill=prefill if apart else None,
        decode=decode,
        ttft_ms=asked.ttft_ms,
        total_ms=asked.total_time_ms,
        parts={name: value for name, value in parts.items() if value is not None},
    )


def _decode(worker: _Worker) -> int | None:
    return worker.decode_worker_id if worker.decode_worker_id is not None else worker.prefill_worker_id


def _process(number: int | None, workers: Mapping[int, str]) -> str | None:
    return None if number is None else workers.get(number, f"worker {number:x}")
