"""Errors of engines and of streams, in OpenAI's shape."""

from __future__ import annotations

import json

import pytest

from dynctl.frontend.errors import engine_error, error_event


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
