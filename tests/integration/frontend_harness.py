"""A router with its parts at hand, on real sockets inside the test's own event loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import uvloop

from dynctl.frontend.app import App
from dynctl.frontend.chooser import Chooser
from dynctl.frontend.errors import refusal_body
from dynctl.frontend.legs import Handover
from dynctl.frontend.messages import RequestRecord, WorkerEntry, WorkerTable
from dynctl.frontend.retry import RetryLimits
from dynctl.frontend.shaping import Shaping
from dynctl.frontend.watch import Timeouts
from dynctl.frontend.workers import Workers
from dynctl.http.client import Client
from dynctl.http.limits import Limits
from dynctl.http.server import Handler, Server

TOKEN = b"run-token"
BODY = b'{"model":"m","prompt":"hi","stream":true,"max_tokens":5}'


Test = Callable[..., Coroutine[Any, Any, None]]


def _on(loops: list[str], test: Test) -> Callable[..., None]:
    def run(*args: Any, loop: str, **kwargs: Any) -> None:
        factory = uvloop.new_event_loop if loop == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test(*args, **kwargs))

    functools.update_wrapper(run, test)
    del run.__wrapped__  # type: ignore[attr-defined]
    signature = inspect.signature(test)
    added = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop", loops)(run)


def both_loops(test: Test) -> Callable[..., None]:
    """Run a test on both event loops: the router runs on uvloop, others may use the HTTP core on asyncio's own."""
    return _on(["asyncio", "uvloop"], test)


def on_uvloop(test: Test) -> Callable[..., None]:
    """Run a test on the router's own kind of event loop."""
    return _on(["uvloop"], test)


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait for a condition, with a deadline."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        await asyncio.sleep(0.002)


def bound() -> socket.socket:
    """A listening socket on a free loopback port."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


@asynccontextmanager
async def serving(handler: Handler, limits: Limits | None = None) -> AsyncIterator[tuple[Server, int]]:
    """An HTTP server with a handler, and its port."""
    sock = bound()
    failures: list[BaseException] = []
    server = Server(handler, limits=limits, error_body=refusal_body, on_exception=failures.append)
    server.failures = failures  # type: ignore[attr-defined]
    await server.listen(sock)
    try:
        yield server, sock.getsockname()[1]
    finally:
        await server.close()


class Router:
    """The frontend's app behind a server; `records` gets what is reported of each request."""

    def __init__(
        self,
        *,
        keys: tuple[bytes, ...] = (),
        handover: Handover | None = None,
        timeouts: Timeouts | None = None,
        retries: RetryLimits | None = None,
        limits: Limits | None = None,
        routing: str = "round-robin",
        resume: bool = False,
        shaping: Shaping | None = None,
    ) -> None:
        self.records: list[RequestRecord] = []
        self.failures: list[BaseException] = []
        self.workers = Workers(Chooser(routing))
        self.client = Client(connect_timeout_s=2.0)
        self.app = App(
            self.workers,
            self.client,
            keys=keys,
            token=TOKEN,
            handover=handover,
            timeouts=timeouts,
            retries=retries,
            resume=resume,
            shaping=shaping,
            on_record=self.records.append,
        )
        self.server = Server(self.app.handle, limits=limits, error_body=refusal_body, on_exception=self.failures.append)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def table(self, expected: dict[str, int] | None = None, **urls: str) -> None:
        """Workers by id with underscores, ready unless written as `state@url`; `lost`: unhealthy as its node is."""
        entries = []
        for name, url in urls.items():
            state, _, rest = url.rpartition("@")
            role, _, number = name.partition("_")
            worker_id = f"{role}-{number}"
            members = {"id": worker_id, "role": role, "url": rest, "state": state or "ready"}
            if state == "lost":
                members |= {"state": "unhealthy", "lost": True}
            entries.append(msgspec.convert(members, WorkerEntry))
        self.app.take(WorkerTable(workers=tuple(entries), expected=expected or {}))

    async def __aenter__(self) -> Router:
        sock = bound()
        self.port = sock.getsockname()[1]
        await self.server.listen(sock)
        self.http = httpx.AsyncClient(base_url=self.url, timeout=30.0, trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()
        await self.server.close()
        await self.client.close()
        assert self.failures == []

    async def ask(
        self, body: bytes = BODY, path: str = "/v1/completions", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Post a JSON body."""
        given = {"content-type": "application/json", **(headers or {})}
        return await self.http.post(path, content=body, headers=given)

    async def record(self, count: int = 1) -> RequestRecord:
        """The last of `count` records."""
        await until(lambda: len(self.records) >= count)
        assert len(self.records) == count
        return self.records[-1]


async def read_until_close(port: int, data: bytes) -> bytes:
    """What a server says to raw bytes until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()
