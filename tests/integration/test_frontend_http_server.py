"""The HTTP server core on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from frontend_harness import both_loops, read_until_close, serving, until

from dynctl.http.limits import Limits
from dynctl.http.message import Request
from dynctl.http.responder import Responder

HELLO = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


async def echo(request: Request, responder: Responder) -> None:
    responder.simple(200, [], request.path.encode() + b":" + request.body)


async def exchange(port: int, data: bytes, expected: bytes) -> bytes:
    """Send bytes and read until `expected` has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = await asyncio.wait_for(reader.readuntil(expected), 20)
    writer.close()
    return got


@both_loops
async def test_keep_alive_and_pipelining_answer_in_order() -> None:
    async def slow_first(request: Request, responder: Responder) -> None:
        await asyncio.sleep(0.05 if request.path == "/0" else 0)
        responder.simple(200, [], request.path.encode())

    async with serving(slow_first) as (_, port):
        data = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(20))
        got = await exchange(port, data, b"/19")
        bodies = re.findall(rb"\r\n\r\n(/\d+)", got)
        assert bodies == [b"/%d" % n for n in range(20)]


@both_loops
async def test_one_request_at_a_time_per_connection() -> None:
    running = most = 0

    async def handler(request: Request, responder: Responder) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        responder.simple(200, [], b"")

    async with serving(handler) as (_, port):
        await read_until_close(port, HELLO * 5 + HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert most == 1


@both_loops
async def test_chunked_upload_and_expect_continue() -> None:
    async with serving(echo) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for piece in (b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"):
            writer.write(piece)
            await writer.drain()
        assert (await asyncio.wait_for(reader.readuntil(b"abcde"), 20)).startswith(b"HTTP/1.1 200")
        writer.close()


@both_loops
async def test_continue_waits_for_the_response_before_it() -> None:
    gate = asyncio.Event()

    async def handler(request: Request, responder: Responder) -> None:
        await gate.wait()
        responder.simple(200, [], b"done" + request.body)

    async with serving(handler) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO + b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        gate.set()
        got = await reader.readuntil(b"100 Continue\r\n\r\n")
        assert got.index(b"done") < got.index(b"100 Continue")
        writer.write(b"x")
        await reader.readuntil(b"donex")
        writer.close()


@both_loops
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n" + b"z" * 500_000, b"413"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"501"),
        (b"GET /\r\n\r\n", b"505"),
    ],
)
async def test_refusals_are_json_and_close(data: bytes, status: bytes) -> None:
    async with serving(echo) as (_, port):
        got = await read_until_close(port, data)
        assert got.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in got
        assert b'{"error":{"message":' in got


@both_loops
async def test_a_refusal_comes_after_the_answers_before_it() -> None:
    async with serving(echo) as (_, port):
        got = await read_until_close(port, HELLO + b"rubbish\r\n\r\n")
        assert got.index(b"/hello:") < got.index(b"HTTP/1.1 400")


@both_loops
async def test_a_client_that_leaves_cancels_its_handler() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: Request, responder: Responder) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serving(handler) as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO)
        await started.wait()
        writer.close()
        await asyncio.wait_for(cancelled.wait(), 20)
        await until(lambda: server.connections == 0)


@both_loops
async def test_a_handler_that_fails_gives_500_or_a_cut() -> None:
    async def handler(request: Request, responder: Responder) -> None:
        if request.path == "/late":
            responder.start(200, [])
            responder.write(b"half")
        if request.path != "/forgot":
            raise ValueError("a bug")

    async with serving(handler) as (server, port):
        assert (await read_until_close(port, HELLO)).startswith(b"HTTP/1.1 500")
        assert (await read_until_close(port, HELLO.replace(b"hello", b"forgot"))).startswith(b"HTTP/1.1 500")
        try:
            got = await read_until_close(port, HELLO.replace(b"hello", b"late"))
        except ConnectionResetError:
            got = b""
        assert not got.endswith(b"0\r\n\r\n")
        assert len(server.failures) == 3  # type: ignore[attr-defined]


@both_loops
async def test_time_limits() -> None:
    limits = Limits(head_s=0.2, body_stall_s=0.2, idle_s=0.2, linger_s=0.2)
    async with serving(echo, limits) as (server, port):
        slow_head = await read_until_close(port, b"GET / HTT")
        assert slow_head.startswith(b"HTTP/1.1 408")
        slow_body = await read_until_close(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        assert slow_body.startswith(b"HTTP/1.1 408")
        assert await read_until_close(port, b"") == b""
        idle = await read_until_close(port, HELLO)
        assert idle.endswith(b"/hello:")
        await until(lambda: server.connections == 0)


@both_loops
async def test_a_trickling_head_has_one_time_limit() -> None:
    async with serving(echo, Limits(head_s=0.3)) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(b"G" if not answer.done() else b"")
            await asyncio.wait((answer,), timeout=0.05)
        assert (await answer).startswith((b"HTTP/1.1 408", b"HTTP/1.1 400"))
        writer.close()


@both_loops
async def test_a_handler_may_take_longer_than_the_limits() -> None:
    async def handler(request: Request, responder: Responder) -> None:
        await asyncio.sleep(0.5)
        responder.simple(200, [], b"late but well")

    limits = Limits(head_s=0.1, body_stall_s=0.1, idle_s=0.1, linger_s=0.1)
    async with serving(handler, limits) as (_, port):
        assert (await read_until_close(port, HELLO)).endswith(b"late but well")


@both_loops
async def test_a_slow_reader_pauses_the_writer_and_a_stalled_one_is_cut() -> None:
    states: list[str] = []
    ended = asyncio.Event()

    async def handler(request: Request, responder: Responder) -> None:
        responder.start(200, [])
        responder.on_pressure(lambda: states.append("pause"), lambda: states.append("resume"))
        try:
            while True:
                while responder.writable:
                    responder.write(b"x" * 65536)
                await asyncio.sleep(0.005)
        finally:
            ended.set()

    async with serving(handler, Limits(write_stall_s=0.5, linger_s=0.2)) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65536)
        writer.write(HELLO)
        await until(lambda: "pause" in states)
        await reader.readexactly(20_000_000)
        assert "resume" in states
        await asyncio.wait_for(ended.wait(), 20)  # it reads no more: the stall limit ends it
        await until(lambda: server.connections == 0)
        writer.transport.abort()


@both_loops
async def test_what_is_written_after_the_client_left_is_nothing() -> None:
    """Whoever brings an answer hears of the client's end only later: that must not be a fault of theirs."""
    responders: list[Responder] = []

    async def handler(request: Request, responder: Responder) -> None:
        responder.start(200, [])
        responder.write(b"one")
        responders.append(responder)
        await asyncio.sleep(3600)

    async with serving(handler) as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO)
        await until(lambda: bool(responders))
        writer.transport.abort()
        await until(lambda: server.connections == 0)
        for data in (b"two", b"three"):
            responders[0].write(data)
        responders[0].end()


@both_loops
async def test_http_1_0_and_head() -> None:
    async def handler(request: Request, responder: Responder) -> None:
        responder.start(200, [])
        responder.write(b"one")
        responder.write(b"two")
        responder.end()

    async with serving(handler) as (_, port):
        got = await read_until_close(port, b"GET / HTTP/1.0\r\n\r\n")
        assert got == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo"
        got = await read_until_close(port, b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert got.endswith(b"\r\n\r\n")
        assert b"one" not in got


@both_loops
async def test_drain_lets_requests_end_and_flushes_them() -> None:
    gate, started = asyncio.Event(), asyncio.Event()
    big = b"x" * 3_000_000

    async def handler(request: Request, responder: Responder) -> None:
        started.set()
        await gate.wait()
        responder.simple(200, [], big)

    async with serving(handler) as (server, port):
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO)
        await started.wait()
        drain = asyncio.create_task(server.drain(20))
        assert await asyncio.wait_for(idle_reader.read(), 20) == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not drain.done()
        gate.set()
        got = await asyncio.wait_for(reader.read(), 20)
        assert b"connection: close" in got
        assert got.endswith(big)
        writer.close()
        assert await drain is True
        idle_writer.close()


@both_loops
async def test_drain_cuts_what_does_not_end() -> None:
    started = asyncio.Event()

    async def handler(request: Request, responder: Responder) -> None:
        started.set()
        await asyncio.Event().wait()

    async with serving(handler) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HELLO)
        await started.wait()
        assert await server.drain(0.1) is False
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert server.connections == 0
