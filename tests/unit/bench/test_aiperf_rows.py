"""aiperf in our loader's place: the same requests go in, and its own export comes back as samples."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from dynctl.bench.aiperf_rows import arguments, dataset, samples
from dynctl.bench.job import Job, Session, Shot
from dynctl.bench.sample import itl_ms, request_latency_ms, ttft_ms

EXPORT = Path(__file__).parents[2] / "data" / "aiperf" / "profile_export.jsonl"
"""As aiperf 0.13 wrote it for four timed requests: served, refused with 503, cut off, served without usage. Some of
the metrics are left out."""


def job(*, timed: bool, chat: bool = False) -> Job:
    def body(number: int) -> bytes:
        text = {"messages": [{"role": "user", "content": f"why {number}"}]} if chat else {"prompt": f"why {number}"}
        return json.dumps({"model": "m", **text, "max_tokens": 4, "stream": True, "ignore_eos": True}).encode()

    shots = [Shot(id=f"r{number}", body=body(number), asked_tokens=4) for number in range(4)]
    sessions = tuple(Session((shot,), number * 0.1 if timed else None) for number, shot in enumerate(shots))
    path = "/v1/chat/completions" if chat else "/v1/completions"
    return Job(url="http://h:1", path=path, sessions=sessions, concurrency=0 if timed else 3, tokenizer="/models/m")


@pytest.mark.parametrize("chat", [False, True])
def test_the_very_requests_go_in(chat: bool) -> None:
    rows = [json.loads(line) for line in dataset(job(timed=True, chat=chat)).splitlines()]
    assert rows[2] == {"text": "why 2", "output_length": 4, "timestamp": 200.0, "extra": {"ignore_eos": True}}
    assert "timestamp" not in json.loads(dataset(job(timed=False)).splitlines()[0])


def test_a_closed_and_an_open_loop() -> None:
    closed = arguments(job(timed=False), "rows", "out", None)
    assert closed[closed.index("--concurrency") + 1] == "3"
    assert closed[closed.index("--request-count") + 1] == "4"
    assert closed[closed.index("--tokenizer") + 1] == "/models/m"
    timed = arguments(job(timed=True, chat=True), "rows", "out", "another")
    assert "--fixed-schedule" in timed
    assert "--concurrency" not in timed
    assert timed[timed.index("--endpoint-type") + 1] == "chat"
    assert timed[timed.index("--tokenizer") + 1] == "another"


def test_what_it_measured_comes_back() -> None:
    """TTFT, ITL and latency as aiperf itself reports them; errors in words; usage where there is some."""
    lines = EXPORT.read_bytes().splitlines()
    first, refused, cut, silent = samples(lines, job(timed=True))
    own = json.loads(lines[0])["metrics"]
    assert first.due_s is not None
    assert first.sent_s > first.due_s
    assert (ttft_ms(first) or 0) - (first.sent_s - first.due_s) * 1000 == pytest.approx(
        own["time_to_first_token"]["value"], abs=0.01
    )
    assert (request_latency_ms(first) or 0) - (first.sent_s - first.due_s) * 1000 == pytest.approx(
        own["request_latency"]["value"], abs=0.01
    )
    assert itl_ms(first) == pytest.approx(sum(own["inter_chunk_latency"]["value"]) / 3, abs=0.01)
    assert (first.id, first.input_tokens, first.output_tokens, first.served) == ("r0", 2, 4, True)
    assert (refused.status, refused.error, refused.served) == (503, "HTTP 503: the queue is full", False)
    assert "disconnected" in str(cut.error)
    assert (silent.served, silent.output_tokens, silent.tokens) == (True, None, 3)


def test_what_is_no_export_is_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        list(samples([b'{"oops": 1}'], job(timed=False)))
