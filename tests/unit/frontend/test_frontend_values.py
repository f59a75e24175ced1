"""Split, routing, table, health, errors, keys, directed requests, metrics: everything that needs no socket."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dynctl.errors import UsageError
from dynctl.frontend.busy import Busy
from dynctl.frontend.directed import Pair, directed_pair, read_token
from dynctl.frontend.errors import Failure, engine_error, error_event
from dynctl.frontend.health import NO_DECODE, NO_PREFILL, NO_WORKER
from dynctl.frontend.job import request_id
from dynctl.frontend.keys import check_key, read_keys
from dynctl.frontend.messages import Report, RequestRecord, WorkerEntry, WorkerTable
from dynctl.frontend.metrics import Metrics
from dynctl.frontend.outbox import Outbox
from dynctl.frontend.routing import Snapshot, Worker, round_robin
from dynctl.frontend.spans import Spans
from dynctl.frontend.workers import Workers
from dynctl.http.message import Headers, Request
from dynctl.http.origin import Origin

CLOCK = st.floats(0, 1e7)


@given(st.lists(CLOCK, min_size=4, max_size=4).map(sorted))
def test_the_parts_add_up_exactly(readings: list[float]) -> None:
    spans = Spans(readings[0])
    spans.prefill_sent, spans.sent, spans.first_content = readings[1:]
    split = spans.split()
    assert split.queue_ms is not None
    assert split.prefill_ms is not None
    assert split.handover_ms is not None
    assert split.queue_ms + split.prefill_ms + split.handover_ms == split.ttft_ms


def test_a_split_of_known_readings() -> None:
    spans = Spans(1.0)
    assert spans.split().queue_ms is None
    spans.prefill_sent = 1.25
    assert (spans.split().queue_ms, spans.split().prefill_ms) == (250.0, None)
    spans.sent = 1.75
    assert (spans.split().prefill_ms, spans.split().ttft_ms) == (500.0, None)
    spans.first_content = 2.0
    split = spans.split()
    assert (split.queue_ms, split.prefill_ms, split.handover_ms, split.ttft_ms) == (250.0, 500.0, 250.0, 1000.0)


def test_one_leg_alone_has_no_handover() -> None:
    spans = Spans(1.0)
    spans.sent, spans.first_content = 1.5, 2.5
    split = spans.split()
    assert (split.queue_ms, split.prefill_ms, split.handover_ms, split.ttft_ms) == (500.0, 1000.0, None, 1500.0)


def worker(name: str) -> Worker:
    return Worker(id=name, role="decode", origin=Origin("h", 1), state="ready")


def test_round_robin() -> None:
    three = (worker("a"), worker("b"), worker("c"))
    chosen = [round_robin(Snapshot(candidates=three, turn=turn)) for turn in range(6)]
    assert [w.id for w in chosen if w] == ["a", "b", "c", "a", "b", "c"]
    assert round_robin(Snapshot(candidates=(), turn=3)) is None


def table(*workers: str, expected: dict[str, int] | None = None) -> WorkerTable:
    """Workers written as `prefill-0=ready`."""
    entries = []
    for number, text in enumerate(workers):
        name, state = text.split("=")
        role = name.split("-")[0]
        url = f"http://h:{8000 + number}"
        entries.append(msgspec.convert({"id": name, "role": role, "url": url, "state": state}, WorkerEntry))
    return WorkerTable(workers=tuple(entries), expected=expected or {})


def known(*workers: str, expected: dict[str, int] | None = None) -> Workers:
    subject = Workers(clock=lambda: 0.0)
    subject.update(table(*workers, expected=expected))
    return subject


def test_only_ready_workers_are_picked() -> None:
    subject = known("decode-0=ready", "decode-1=proving", "decode-2=draining", "decode-3=down")
    assert {w.id for _ in range(8) if (w := subject.pick("decode"))} == {"decode-0"}
    assert subject.pick("decode", ["decode-0"]) is None
    assert subject.pick("prefill") is None


def test_pools_take_turns_of_their_own() -> None:
    subject = known("prefill-0=ready", "prefill-1=ready", "decode-0=ready", "decode-1=ready")
    picked = [w.id for _ in range(2) for role in ("prefill", "decode") if (w := subject.pick(role))]
    assert picked == ["prefill-0", "decode-0", "prefill-1", "decode-1"]


def test_a_suspect_is_avoided_for_a_while_unless_it_is_all_there_is() -> None:
    now = 0.0
    subject = Workers(clock=lambda: now)
    subject.update(table("decode-0=ready", "decode-1=ready"))
    zero = subject.get("decode-0")
    assert zero is not None
    subject.suspect(zero)
    assert {w.id for _ in range(4) if (w := subject.pick("decode"))} == {"decode-1"}
    assert subject.pick("decode", ["decode-1"]) == zero
    now = 2.5
    assert {w.id for _ in range(4) if (w := subject.pick("decode"))} == {"decode-0", "decode-1"}


def test_update_says_who_went_out_of_service() -> None:
    subject = known("prefill-0=ready", "decode-0=ready", "decode-1=proving")
    assert [w.id for w in subject.update(table("prefill-0=ready", "decode-0=down"))] == ["decode-0", "decode-1"]
    assert subject.update(table("prefill-0=ready", "decode-0=down")) == []
    moved = WorkerTable(workers=(WorkerEntry(id="prefill-0", role="prefill", url="http://h:9", state="ready"),))
    assert [w.id for w in subject.update(moved)] == ["prefill-0", "decode-0"]


HEALTH = [
    (["prefill-0=ready", "decode-0=ready"], {}, "ok", None),
    (["prefill-0=down", "decode-0=ready"], {}, "degraded", NO_PREFILL),
    (["decode-0=ready"], {"prefill": 1, "decode": 1}, "degraded", NO_PREFILL),
    (["decode-0=ready"], {}, "ok", None),
    (["prefill-0=ready", "decode-0=proving"], {}, "down", NO_DECODE),
    (["prefill-0=ready"], {"prefill": 1, "decode": 1}, "down", NO_DECODE),
    (["worker-0=ready", "worker-1=down"], {}, "ok", None),
    (["worker-0=down"], {}, "down", NO_WORKER),
    ([], {}, "down", NO_DECODE),
]


@pytest.mark.parametrize(("workers", "expected", "status", "reason"), HEALTH)
def test_health(workers: list[str], expected: dict[str, int], status: str, reason: str | None) -> None:
    health = known(*workers, expected=expected).health()
    assert (health.status, health.reason) == (status, reason)


def test_health_before_the_supervisor_spoke() -> None:
    health = Workers().health()
    assert health.status == "down"
    assert "supervisor" in (health.reason or "")


def request(*headers: tuple[bytes, bytes]) -> Request:
    fields: Headers = list(headers)
    return Request(
        method="POST", target=b"/", path="/", headers=fields, body=b"", received=0.0, http10=False, keep_alive=True
    )


def test_engine_errors_keep_openai_shape_verbatim() -> None:
    body = b'{"error": {"message": "too long", "type": "BadRequestError", "param": null, "code": 400}}'
    assert engine_error(400, body, "decode-0") is body


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"object":"error","message":"too long","type":"x","code":400}', "too long"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body"]}]}', '"loc"'),
        (b"Internal Server\nError", "Internal Server Error"),
        (b"\xff\xfe", "�"),
        (b"[1]", "[1]"),
        (b"", "decode-0 answered 500"),
    ],
)
def test_other_engine_errors_are_wrapped(body: bytes, said: str) -> None:
    error = json.loads(engine_error(500, body, "decode-0"))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "decode-0 answered 500" in error["message"]
    assert said in error["message"]


def test_an_error_event_is_one_event() -> None:
    data = error_event("gone\nfor good", "worker_lost")
    assert data.startswith(b"data: {")
    assert data.endswith(b"}\n\n")
    assert data.count(b"\n") == 2
    assert json.loads(data[6:])["error"]["code"] == "worker_lost"


def test_request_ids() -> None:
    assert request_id(request((b"x-request-id", b"abc-1.2:3"))) == b"abc-1.2:3"
    for bad in (b"", b"a b", b"a\tb", b"x" * 201, "é".encode(), b'a"b'):
        made = request_id(request((b"x-request-id", bad)))
        assert made != bad
        assert len(made) == 32
    assert request_id(request()) != request_id(request())


def test_api_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\n\nsk-one\n  sk-two  \n")
    keys = read_keys(path)
    assert keys == (b"sk-one", b"sk-two")
    for good in (b"Bearer sk-one", b"bearer sk-two", b"Bearer  sk-two "):
        check_key(request((b"authorization", good)), keys)
    for bad in (b"", b"sk-one", b"Basic sk-one", b"Bearer sk-on", b"Bearer ", b"Bearer sk-one,sk-two", b"Bearer \xff"):
        with pytest.raises(Failure) as caught:
            check_key(request((b"authorization", bad)), keys)
        assert caught.value.status == 401
    with pytest.raises(Failure):
        check_key(request(), keys)
    check_key(request(), ())


def test_bad_key_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("# nothing\n")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (empty, binary, tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError):
            read_keys(path)
    assert read_keys(None) == ()


def pair_of(value: bytes, token: bytes = b"t0k") -> Pair | None:
    return directed_pair(request((b"x-dynctl-pair", value), (b"x-dynctl-token", token)), b"t0k")


def test_directed_pairs() -> None:
    assert directed_pair(request((b"x-dynctl-token", b"wrong")), b"t0k") is None
    assert pair_of(b"prefill-0>decode-1") == Pair("prefill-0", "decode-1")
    assert pair_of(b" prefill-0 > decode-1 ") == Pair("prefill-0", "decode-1")
    assert pair_of(b"decode-1") == Pair(None, "decode-1")
    for bad in (b"prefill-0>", b">decode-0"):
        with pytest.raises(Failure) as caught:
            pair_of(bad)
        assert caught.value.status == 400


@pytest.mark.parametrize(("given", "token"), [(b"wrong", b"t0k"), (b"", b"t0k"), (b"\xff", b"t0k"), (b"", None)])
def test_directed_requests_need_the_token(given: bytes, token: bytes | None) -> None:
    with pytest.raises(Failure) as caught:
        directed_pair(request((b"x-dynctl-pair", b"decode-0"), (b"x-dynctl-token", given)), token)
    assert caught.value.status == 403


def test_token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DYNCTL_TOKEN_FILE", raising=False)
    assert read_token() is None
    path = tmp_path / "token"
    monkeypatch.setenv("DYNCTL_TOKEN_FILE", str(path))
    with pytest.raises(UsageError):
        read_token()
    path.write_text("")
    with pytest.raises(UsageError):
        read_token()
    path.write_text("s3cret\n")
    assert read_token() == b"s3cret"


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
    assert seen["dynctl_requests_total", frozenset({**labels, "status": "200"}.items())] == 2
    assert seen["dynctl_requests_total", frozenset({**labels, "status": "502"}.items())] == 1
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
    assert (metrics.requests_total, metrics.errors_total) == (3, 1)


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
