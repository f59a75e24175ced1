"""Lines for logs and pipes."""

from __future__ import annotations

import pytest

from dynctl.store.event import Event
from dynctl.ui.plain import plain_line, request_line, short_id
from tests.unit.ui import scenes


def event(**fields: object) -> Event:
    base: dict[str, object] = {"seq": 1, "at": scenes.NOW, "kind": "process.phase", "message": "loading weights"}
    return Event(**{**base, **fields})  # type: ignore[arg-type]


def test_a_transition_is_one_line() -> None:
    assert plain_line(event(process="prefill-0")) == "17:03:12 prefill-0    loading weights"
    assert plain_line(event(kind="run.state", message="ready")) == "17:03:12 run          ready"
    line = plain_line(event(process="decode-0", message="crashed", why="exit 1\nTraceback\x1b[0m"))
    assert line == "17:03:12 decode-0     crashed (exit 1 Traceback [0m)"
    assert plain_line(event(kind="error", message="port taken")).endswith("error: port taken")
    assert plain_line(event(kind="warning", message="warning: slow")).endswith("  warning: slow")
    assert plain_line(event(), clock="utc").split(" ")[0].endswith("Z")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {},
            "17:03:12 9f3c2b7a… /v1/chat/completions prefill-0→decode-0 200 "
            "TTFT 62 ms = queue 0 + prefill 31 + handover 31, total 0.41 s",
        ),
        (
            {"streamed": False, "ttft_ms": None},
            "17:03:12 9f3c2b7a… /v1/chat/completions prefill-0→decode-0 200 not streamed, total 0.41 s",
        ),
        (
            {"mode": "decode-only", "prefill": None, "prefill_ms": None, "handover_ms": 62.4, "id": "7", "status": 200},
            "17:03:12 7 /v1/chat/completions decode-0 alone 200 TTFT 62 ms = queue 0 + handover 62, total 0.41 s",
        ),
        (
            {"status": 503, "ttft_ms": None, "error": "no worker\n", "prefill": None, "decode": None},
            "17:03:12 9f3c2b7a… /v1/chat/completions nowhere 503 total 0.41 s: no worker",
        ),
        (
            {"mode": "aggregated", "prefill": None, "decode": "worker-0", "ttft_ms": 1300.0, "prefill_ms": 1299.0}
            | {"queue_ms": 1.0, "handover_ms": None, "directed": True, "total_ms": 12345.0},
            "17:03:12 9f3c2b7a… /v1/chat/completions worker-0 200 "
            "TTFT 1.30 s = queue 1 + prefill 1.30 s, total 12.3 s, directed",
        ),
    ],
)
def test_a_request_is_one_line(changes: dict[str, object], line: str) -> None:
    assert request_line(scenes.request(**changes)) == line


def test_short_ids() -> None:
    assert short_id("cmpl-1234567890") == "12345678…"
    assert short_id("abc") == "abc"
