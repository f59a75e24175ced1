"""The HTTP client core against scripted servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from frontend_harness import both_loops, bound, until
from stub_engine import Asked, Script, StubEngine, chunk, hang_up, reply, silent

from dynctl.http.call import ClientError
from dynctl.http.client import Client, Response
from dynctl.http.message import Headers
from dynctl.http.origin import Origin, parse_origin


class Events:
    """Sink that remembers."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.bytes = 0
        self.over = asyncio.Event()

    def on_head(self, status: int, headers: Headers) -> None:
        self.seen.append(status)

    def on_body(self, data: bytes) -> None:
        self.bytes += len(data)

    def on_end(self) -> None:
        self.seen.append("end")
        self.over.set()

    def on_error(self, error: ClientError) -> None:
        self.seen.append(error.kind)
        self.over.set()


def raw(data: bytes, *, close: bool = False) -> Script:
    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if close:
            writer.close()

    return script


@asynccontextmanager
async def using(script: Script, **options: float) -> AsyncIterator[tuple[StubEngine, Client, Origin]]:
    client = Client(**options)  # type: ignore[arg-type]
    async with StubEngine(script) as engine:
        yield engine, client, parse_origin(engine.url)
        await client.close()


async def get(client: Client, origin: Origin, method: str = "GET") -> Response:
    return await client.fetch(origin, method, b"/x?y", [(b"a", b"1")], b"", timeout_s=20)


@both_loops
async def test_a_request_and_its_answer() -> None:
    async with using(reply("hello")) as (engine, client, origin):
        answer = await client.fetch(origin, "POST", b"/x?y", [(b"a", b"1")], b"body", timeout_s=20)
        assert (answer.status, answer.body) == (200, b"hello")
        (asked,) = engine.asked
        assert (asked.method, asked.target, asked.body) == ("POST", "/x?y", b"body")
        assert asked.headers == {"host": f"127.0.0.1:{engine.port}", "a": "1", "content-length": "4"}


@both_loops
async def test_connections_are_reused_and_limits_of_idleness_kept() -> None:
    now = 0.0
    client = Client(clock=lambda: now)
    async with StubEngine(reply("a")) as engine:
        origin = parse_origin(engine.url)
        for _ in range(3):
            await get(client, origin)
        assert engine.connections == 1
        now = 50.0
        await get(client, origin)
        assert engine.connections == 1
        now = 111.0
        await get(client, origin)
        assert engine.connections == 2
        await asyncio.gather(*(get(client, origin) for _ in range(3)))
        assert engine.connections == 4
        await client.close()


@both_loops
async def test_connections_are_not_kept_for_longer_than_the_server_keeps_them() -> None:
    now = 0.0
    client = Client(clock=lambda: now)
    async with StubEngine(reply("a")) as engine:
        origin = parse_origin(engine.url)

        async def connections(idle_s: float) -> int:
            """How many there have been after a request that comes so long after the last one."""
            nonlocal now
            now += idle_s
            await get(client, origin)
            return engine.connections

        async def closed_after(idle_s: float) -> None:
            nonlocal now
            now += idle_s
            engine.close_connections()
            await until(lambda: client.idle(origin) == 0)

        assert await connections(0) == 1
        await closed_after(5.0)
        assert await connections(0) == 2
        assert await connections(3.9) == 2
        assert await connections(4.1) == 3
        await closed_after(0.0)  # the server ends
        assert await connections(0) == 4
        assert await connections(0.4) == 4
        client.forget(origin)  # and another has its place
        assert await connections(0) == 5
        assert await connections(50.0) == 5
        await client.close()


@both_loops
async def test_a_stale_connection_is_replaced_and_the_request_sent_again() -> None:
    async with using(reply("a")) as (engine, client, origin):
        await get(client, origin)
        engine.script = hang_up()

        async def once(asked: Asked, writer: asyncio.StreamWriter) -> None:
            engine.script = reply("b")
            writer.close()

        engine.script = once
        assert (await get(client, origin)).body == b"b"
        assert len(engine.asked) == 3
        assert engine.connections == 2


@both_loops
async def test_a_fresh_connection_that_closes_is_an_error_at_once() -> None:
    async with using(hang_up()) as (engine, client, origin):
        with pytest.raises(ClientError) as caught:
            await get(client, origin)
        assert caught.value.kind == "closed"
        assert len(engine.asked) == 1


@both_loops
async def test_no_second_try_once_bytes_have_come() -> None:
    async with using(reply("a")) as (engine, client, origin):
        await get(client, origin)
        engine.script = raw(b"HTTP/1.1 200 OK\r\ncontent-", close=True)
        with pytest.raises(ClientError) as caught:
            await get(client, origin)
        assert caught.value.kind == "closed"
        assert len(engine.asked) == 2


@both_loops
async def test_nobody_listens() -> None:
    sock = bound()
    port = sock.getsockname()[1]
    sock.close()
    client = Client()
    with pytest.raises(ClientError) as caught:
        await get(client, Origin("127.0.0.1", port))
    assert caught.value.kind == "connect"
    with pytest.raises(ClientError) as caught:
        await get(client, Origin("no-such-host.invalid", port))
    assert caught.value.kind == "connect"
    await client.close()


@both_loops
async def test_timeouts() -> None:
    async with using(silent()) as (engine, client, origin):
        with pytest.raises(ClientError) as caught:
            await client.fetch(origin, "GET", b"/", [], b"", timeout_s=0.1)
        assert caught.value.kind == "timeout"
        await asyncio.wait_for(engine.asked[0].left.wait(), 20)
        sink = Events()
        client.send(origin, "GET", b"/", [], b"", sink, head_timeout_s=0.1)
        await asyncio.wait_for(sink.over.wait(), 20)
        assert sink.seen == ["timeout"]


FRAMINGS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", False),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"ab") + chunk(b"c") + b"0\r\n\r\n",
        False,
    ),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nabc", True),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nabc", True),
    "interim first": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", False),
    "closing": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", True),
    "two answers": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nd",
        False,
    ),
}


@both_loops
@pytest.mark.parametrize(("data", "close"), FRAMINGS.values(), ids=FRAMINGS.keys())
async def test_framings(data: bytes, close: bool) -> None:
    async with using(raw(data, close=close)) as (_, client, origin):
        for _ in range(2):
            answer = await get(client, origin)
            assert (answer.status, answer.body) == (200, b"abc")


BROKEN = {
    "short body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "closed"),
    "no last chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"abc"), "closed"),
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n", "protocol"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "protocol"),
    "switch": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "protocol"),
}


@both_loops
@pytest.mark.parametrize(("data", "kind"), BROKEN.values(), ids=BROKEN.keys())
async def test_broken_answers(data: bytes, kind: str) -> None:
    async with using(raw(data, close=True)) as (_, client, origin):
        with pytest.raises(ClientError) as caught:
            await get(client, origin)
        assert caught.value.kind == kind


@both_loops
async def test_head_answers_have_no_body() -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    async with using(raw(data)) as (_, client, origin):
        assert (await get(client, origin, "HEAD")).body == b""
        assert (await get(client, origin, "HEAD")).status == 200


@both_loops
async def test_abort_closes_the_connection_and_silences_the_sink() -> None:
    async with using(silent()) as (engine, client, origin):
        sink = Events()
        call = client.send(origin, "GET", b"/", [], b"", sink)
        await until(lambda: bool(engine.asked))
        call.abort()
        await asyncio.wait_for(engine.asked[0].left.wait(), 20)
        assert sink.seen == []
        early = client.send(origin, "GET", b"/", [], b"", sink)
        early.abort()
        await asyncio.sleep(0)
        assert sink.seen == []


@both_loops
async def test_pause_holds_the_server_back() -> None:
    written = 0

    async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while not asked.left.is_set():
            writer.write(b"x" * 100_000)
            await writer.drain()
            written += 100_000

    async with using(endless) as (engine, client, origin):
        sink = Events()
        call = client.send(origin, "GET", b"/", [], b"", sink)
        call.pause()
        await until(lambda: written > 0)
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.1)
        assert written < 20_000_000
        assert sink.bytes < 1_000_000
        call.resume()
        await until(lambda: sink.bytes > 30_000_000)
        call.abort()
        await asyncio.wait_for(engine.asked[0].left.wait(), 20)
