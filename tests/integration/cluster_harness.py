"""A router over engines by id, whose states in its table can be changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from frontend_harness import BODY, Router
from stub_engine import STREAM_HEAD, Asked, Script, StubEngine, chunk, stream, text_event

from dynctl.frontend.retry import RetryLimits
from dynctl.frontend.watch import Timeouts

DONE = b"data: [DONE]\n\n"
GOOD = stream(text_event("x"), DONE)
WHOLE = b'{"prompt":"hi","max_tokens":5}'


class Cluster:
    """A router over engines by id; `state` changes what the table says of them."""

    def __init__(self, router: Router, engines: dict[str, StubEngine]) -> None:
        self.router = router
        self.engines = engines
        self.states = dict.fromkeys(engines, "ready")

    def __getitem__(self, name: str) -> StubEngine:
        return self.engines[name]

    def say(self, **states: str) -> None:
        self.states.update(states)
        self.router.table(**{name: f"{self.states[name]}@{engine.url}" for name, engine in self.engines.items()})

    def asked(self, *names: str) -> list[int]:
        return [len(self.engines[name].asked) for name in names]

    async def metric(self, line: str) -> bool:
        return line in (await self.router.http.get("/metrics")).text


@asynccontextmanager
async def cluster(
    timeouts: Timeouts | None = None, retries: RetryLimits | None = None, **scripts: Script
) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(StubEngine(script)) for name, script in scripts.items()}
        router = await stack.enter_async_context(Router(timeouts=timeouts, retries=retries))
        made = Cluster(router, engines)
        made.say()
        yield made


def begun_then_silent() -> Script:
    """One chunk, and then nothing until the peer leaves."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(text_event("a")))
        await asked.left.wait()

    return script


async def read_on(c: Cluster, began: asyncio.Event) -> bytes:
    """A whole streamed answer; `began` is set with its first bytes."""
    content = b""
    async with c.router.http.stream("POST", "/v1/completions", content=BODY) as answer:
        async for piece in answer.aiter_bytes():
            content += piece
            began.set()
    return content


def error_in(content: bytes) -> dict[str, object]:
    """The error of a stream's last event, its shape checked."""
    last = content.removesuffix(b"\n\n").split(b"\n\n")[-1]
    error: dict[str, object] = json.loads(last.removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error
