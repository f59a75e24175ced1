"""What a window is fed with, made up: requests' records and samples of engines."""

from __future__ import annotations

import msgspec

from dynctl.frontend.messages import RequestRecord
from dynctl.telemetry.scrape import EngineSample
from dynctl.telemetry.window import EngineWindow

INF = float("inf")


def record(
    queue: float | None = 1.0, prefill: float | None = 20.0, handover: float | None = 9.0, **changes: object
) -> RequestRecord:
    parts = [part for part in (queue, prefill, handover) if part is not None]
    fields: dict[str, object] = {
        "id": "a", "at": 1.0, "path": "/v1/completions", "mode": "disaggregated", "status": 200, "streamed": True,
        "queue_ms": queue, "prefill_ms": prefill, "handover_ms": handover, "ttft_ms": sum(parts) if parts else None,
        **changes,
    }  # fmt: skip
    return msgspec.convert(fields, RequestRecord)


def window(*samples: EngineSample, window_s: float = 60.0) -> EngineWindow:
    made = EngineWindow(window_s)
    for one in samples:
        made.add(one)
    return made


def at(seconds: float, **fields: object) -> EngineSample:
    return msgspec.convert({"at": seconds, **fields}, EngineSample)
