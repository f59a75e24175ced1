"""A router over one prefill and one decode engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from frontend_harness import Router
from stub_engine import Script, StubEngine, event, prefill_reply, stream, text_event

DONE = b"data: [DONE]\n\n"
ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
OPENAI_ERROR = b'{"error": {"message": "too long", "type": "BadRequestError", "param": null, "code": 400}}'


@asynccontextmanager
async def pair(
    prefill: Script | None = None, decode: Script | None = None, router: Router | None = None
) -> AsyncIterator[tuple[Router, StubEngine, StubEngine]]:
    """A router over one prefill and one decode engine."""
    async with (
        StubEngine(prefill or prefill_reply()) as p,
        StubEngine(decode or stream(text_event("he"), text_event("llo"), DONE)) as d,
        router or Router() as r,
    ):
        r.table(prefill_0=p.url, decode_0=d.url)
        yield r, p, d


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error member, its shape checked."""
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document["error"]) == {"message", "type", "param", "code"}
    error: dict[str, object] = document["error"]
    return error
