"""What supervisor and frontend tell each other over the supervisor's socket, as JSON lines.

The frontend connects and says `Hello`; the supervisor answers with a `WorkerTable` at once and again on every change,
and with `WindowFigures` now and then; the frontend sends `Report`s of the requests it finished.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Mode = Literal["disaggregated", "decode-only", "aggregated"]
WorkerState = Literal["proving", "ready", "unhealthy", "draining", "down"]


class WorkerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as the supervisor sees it. Only `ready` ones get users' requests; `proving` ones get directed ones.

    `unhealthy`: it runs but does not answer; what it has not begun to answer is tried on another, where there is one.
    `draining`: it is taken out, and ends what it has. `down`: it is out of service. `lost`: nothing is heard of its
    node, so that KV which was to come from it may never come.
    """

    id: str
    role: Literal["prefill", "decode", "worker"]
    url: str
    state: WorkerState
    lost: bool = False


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished request; milliseconds by the frontend's monotonic clock, `at` in wall-clock seconds at arrival.

    queue + prefill + handover = ttft. ttft is None for requests that were not streamed or failed before any content.
    itl: the mean time between the events of a stream that follow its first content. `parts`: of TTFT, in place of the
    three, where another router measured it, named for what it measured. `resumed`: the workers that carried a stream
    on, one after the other, when its `decode` was lost.
    """

    id: str
    at: float
    path: str
    mode: Mode
    status: int
    streamed: bool
    prefill: str | None = None
    decode: str | None = None
    queue_ms: float | None = None
    prefill_ms: float | None = None
    handover_ms: float | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None
    total_ms: float = 0.0
    error: str | None = None
    directed: bool = False
    resumed: list[str] = []
    parts: dict[str, float] = {}


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="frontend", tag_field="op"):
    """First message of a frontend."""

    pid: int


class WorkerTable(msgspec.Struct, frozen=True, kw_only=True, tag="workers", tag_field="op"):
    """All workers. `expected` counts the planned ones by role: a missing pool can be told from an unplanned one."""

    workers: tuple[WorkerEntry, ...]
    expected: dict[str, int] = {}


class WindowFigures(msgspec.Struct, frozen=True, kw_only=True, tag="window", tag_field="op"):
    """The windowed part of the TTFT split (milliseconds; `gigabytes_per_s` too), to be shown in /metrics."""

    figures: dict[str, float | None]


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report", tag_field="op"):
    """Requests finished since the last report, and the frontend's own view of its health and load.

    `busy`: requests under way by worker, of those that have any. `leaving`: it drains, and takes nothing new.
    """

    requests: tuple[RequestRecord, ...] = ()
    in_flight: int = 0
    busy: dict[str, int] = {}
    leaving: bool = False
    requests_total: int = 0
    errors_total: int = 0
    health: Literal["ok", "degraded", "down"] = "ok"
    reason: str | None = None


ToFrontend = WorkerTable | WindowFigures
FromFrontend = Hello | Report
