"""Two nodes over loopback, and what else may connect: each bad peer is an error with cause and fix, and soon."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from dynctl.errors import DynctlError, HostError, TransportError, UsageError
from dynctl.fabric.peer import link as link_module
from dynctl.fabric.peer.handshake import HELLO_BYTES, MAGIC, PROTOCOL, Hello
from dynctl.fabric.peer.link import read_frame, write_frame
from dynctl.fabric.peer.meeting import Meeting, connect, listen
from dynctl.fabric.peer.messages import Found, Ready, Turned

TOKEN = "a-token-of-more-than-16-characters"
HOST = "127.0.0.1"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 5 s with users takes less here."""
    monkeypatch.setattr(link_module, "GREETING_S", 0.5)
    monkeypatch.setattr(link_module, "SILENCE_S", 1.0)
    monkeypatch.setattr(link_module, "BEAT_S", 0.1)


async def listening(
    peer: Callable[[str, int], Awaitable[None]], use: Callable[[Meeting], Awaitable[None]] | None = None
) -> None:
    """A listener on a free port, met by `peer`; what `use` does with the meeting. Raises what the listener raises."""
    where: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with listen(HOST, 0, TOKEN, where.set_result) as met:
            await (use or idle)(met)

    serving = asyncio.create_task(serve())
    host, _, port = (await where).rpartition(":")
    other = asyncio.create_task(peer(host, int(port)))
    try:
        async with asyncio.timeout(20):
            await serving
    finally:
        await asyncio.wait({other}, timeout=0.2)  # asyncio leaks a connection that is cancelled while it is made
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)


async def idle(met: Meeting) -> None:
    await met.link.receive(Found)


async def refused(peer: Callable[[str, int], Awaitable[None]]) -> DynctlError:
    with pytest.raises(DynctlError) as raised:
        await listening(peer)
    assert raised.value.fix
    return raised.value


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def hello(**changes: object) -> bytes:
    given = {"magic": MAGIC, "protocol": PROTOCOL, "version": link_version(), "nonce": "00" * 32}
    return msgspec.json.encode(Hello(**{**given, **changes}))  # type: ignore[arg-type]


def link_version() -> str:
    import dynctl

    return dynctl.__version__


async def test_messages_go_both_ways() -> None:
    got: list[object] = []

    async def peer(host: str, port: int) -> None:
        async with connect(host, port, TOKEN) as met:
            met.link.send(Ready(error="e"))
            got.append(await met.link.receive(Turned))

    async def use(met: Meeting) -> None:
        got.append(await met.link.receive(Ready))
        met.link.send(Turned(written_bytes=7))
        assert (met.own_address, met.peer_address, met.netdev) == (HOST, HOST, "lo")

    await listening(peer, use)
    assert Ready(error="e") in got


async def test_a_message_sent_just_before_the_end_is_read() -> None:
    async def peer(host: str, port: int) -> None:
        async with connect(host, port, TOKEN) as met:
            met.link.send(Turned(written_bytes=1))

    async def use(met: Meeting) -> None:
        await asyncio.sleep(0.3)
        assert await met.link.receive(Turned) == Turned(written_bytes=1)
        with pytest.raises(TransportError, match="the peer is gone"):
            await met.link.receive(Turned)

    await listening(peer, use)


async def test_the_wrong_token() -> None:
    async def use_wrong() -> None:
        async with connect(HOST, port, TOKEN + "x"):
            pass

    where: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with listen(HOST, 0, TOKEN, where.set_result):
            pass

    serving = asyncio.create_task(serve())
    port = int((await where).rpartition(":")[2])
    with pytest.raises(UsageError, match="refuses this token"):
        await use_wrong()
    with pytest.raises(TransportError, match="another token") as raised:
        await serving
    assert raised.value.fix


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 64, b"\xff" * 9000, b"SSH-2.0-x\r\n"])
async def test_a_peer_that_is_not_dynctl(data: bytes) -> None:
    async def peer(_: str, port: int) -> None:
        async with raw(port) as (_, writer):
            writer.write(data)
            await asyncio.sleep(30)

    error = await refused(peer)
    assert "not `dynctl check-rdma`" in error.cause
    assert error.exit_code == 4


@pytest.mark.parametrize("after", [0, 2, 30])
async def test_a_peer_that_leaves_or_stays_silent(after: int) -> None:
    async def peer(_: str, port: int) -> None:
        async with raw(port) as (_, writer):
            writer.write(b"\x00\x00\x00\x20{}"[:after])
            if after != 30:
                writer.close()
            await asyncio.sleep(30)

    assert (await refused(peer)).exit_code == 4


async def test_a_half_open_connection_ends() -> None:
    async def peer(_: str, port: int) -> None:
        async with raw(port) as (reader, writer):
            write_frame(writer, hello())
            await read_frame(reader, HELLO_BYTES)
            await asyncio.sleep(30)

    assert (await refused(peer)).exit_code == 4


async def test_another_version() -> None:
    async def peer(_: str, port: int) -> None:
        async with raw(port) as (_, writer):
            write_frame(writer, hello(version="9.9.9"))
            await asyncio.sleep(30)

    error = await refused(peer)
    assert "9.9.9" in error.cause
    assert "same version" in (error.fix or "")


async def test_a_hello_that_claims_to_be_huge_is_not_awaited() -> None:
    async def peer(_: str, port: int) -> None:
        async with raw(port) as (_, writer):
            writer.write(struct.pack(">I", 1 << 31))
            await asyncio.sleep(30)

    assert "not `dynctl check-rdma`" in (await refused(peer)).cause


async def test_a_listener_that_is_something_else() -> None:
    async def shout(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(shout, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TransportError, match="not `dynctl check-rdma`") as raised:
            async with connect(HOST, port, TOKEN):
                pass
    assert "220 mail" in raised.value.why[0]


async def test_silence_in_the_middle_is_the_end() -> None:
    """A link that is down sends nothing, not even a reset."""

    async def peer(host: str, port: int) -> None:
        async with connect(host, port, TOKEN) as met:
            for task in met.link._tasks:
                task.cancel()
            await asyncio.sleep(30)

    error = await refused(peer)
    assert error.cause == "the peer is gone"
    assert "nothing came" in error.why[0]


async def test_work_is_cancelled_when_the_link_is_lost() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def peer(host: str, port: int) -> None:
        async with connect(host, port, TOKEN):
            pass

    async def use(met: Meeting) -> None:
        await met.link.during(work())

    with pytest.raises(TransportError, match="the peer is gone"):
        await listening(peer, use)
    assert ended.is_set()


async def test_the_peer_is_told_why_this_end_gives_up() -> None:
    async def peer(host: str, port: int) -> None:
        async with connect(host, port, TOKEN):
            raise TransportError("the NIC is on fire", fix="pull the plug")

    error = await refused(peer)
    assert "the NIC is on fire" in error.cause
    assert error.fix == "pull the plug"


async def test_a_message_out_of_place() -> None:
    async def peer(host: str, port: int) -> None:
        async with connect(host, port, TOKEN) as met:
            met.link.send(Ready())
            await asyncio.sleep(30)

    with pytest.raises(TransportError, match="does not belong here"):
        await listening(peer)


async def test_nothing_listens() -> None:
    with pytest.raises(TransportError, match="nothing listens") as raised:
        async with connect(HOST, 1, TOKEN):
            pass
    assert raised.value.exit_code == 4


async def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="there is no host"):
        async with connect("does-not-exist.invalid", 1, TOKEN):
            pass


@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1"])
async def test_an_address_that_cannot_be_listened_on(host: str) -> None:
    server = await asyncio.start_server(lambda *_: None, HOST, 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(HostError, match="can't listen") as raised:
            async with listen(host, port, TOKEN, lambda _: None):
                pass
    assert raised.value.fix
