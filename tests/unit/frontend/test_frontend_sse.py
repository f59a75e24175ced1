"""The first non-empty content of a stream."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.frontend.sse import FirstContent


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def delta(**members: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": members}]})


NOT_CONTENT = {
    "role": delta(role="assistant", content=""),
    "null content": delta(content=None, tool_calls=[]),
    "no choices": event({"choices": [], "usage": {"prompt_tokens": 1}}),
    "null choices": event({"choices": None}),
    "empty text": event({"choices": [{"text": "", "token_ids": []}]}),
    "prompt ids": event({"choices": [{"text": "", "prompt_token_ids": [1, 2]}]}),
    "done": b"data: [DONE]\n\n",
    "comment": b": ping\n\n",
    "other field": b"event: x\nid: 1\nretry: 1\n\n",
    "not json": b"data: {nope}\n\n",
    "other shape": b'data: {"choices": 3}\n\n',
    "error": event({"error": {"message": "no"}}),
}
CONTENT = {
    "content": delta(content="a"),
    "reasoning": delta(reasoning="a"),
    "reasoning_content": delta(reasoning_content="a"),
    "tool calls": delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]),
    "refusal": delta(refusal="no"),
    "text": event({"choices": [{"text": "a"}]}),
    "token ids without text": event({"choices": [{"text": "", "token_ids": [7]}]}),
    "second choice": event({"choices": [{"text": ""}, {"text": "b"}]}),
    "response delta": b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n',
    "CRLF": b'data: {"choices":[{"text":"a"}]}\r\n\r\n',
    "no space": b'data:{"choices":[{"text":"a"}]}\n\n',
}


@pytest.mark.parametrize("data", NOT_CONTENT.values(), ids=NOT_CONTENT.keys())
def test_not_content(data: bytes) -> None:
    assert not FirstContent().feed(data)


@pytest.mark.parametrize("data", CONTENT.values(), ids=CONTENT.keys())
def test_content(data: bytes) -> None:
    subject = FirstContent()
    assert subject.feed(data)
    assert subject.seen


@given(st.integers(1, 60))
def test_events_may_be_cut_anywhere(size: int) -> None:
    data = b"".join(NOT_CONTENT.values()) + delta(content="é")
    subject = FirstContent()
    found = [subject.feed(data[i : i + size]) for i in range(0, len(data), size)]
    assert sum(found) == 1
    assert not any(found[: (len(data) - 20) // size - 1])


def test_content_after_the_role_in_one_read() -> None:
    assert FirstContent().feed(delta(role="assistant", content="") + delta(content="a"))


def test_an_error_before_content_is_kept() -> None:
    subject = FirstContent()
    assert not subject.feed(event({"error": {"message": "KV load failed", "code": 500}}))
    assert subject.error == "KV load failed"


def test_an_endless_line_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynctl.frontend.sse._MAX_LINE_BYTES", 1000)
    subject = FirstContent()
    for _ in range(10):
        assert not subject.feed(b"data: " + b"x" * 300)
    assert not subject.feed(b'{"choices":[{"text":"a"}]}\n')
    assert subject.feed(event({"choices": [{"text": "a"}]}))
