"""Headers, origins, and a responder's framing over a transport that only remembers."""

from __future__ import annotations

import asyncio

import pytest

from dynctl.errors import UsageError
from dynctl.http.client import Client
from dynctl.http.connection import Connection
from dynctl.http.message import Headers, Request, encode_head, end_to_end, status_line
from dynctl.http.origin import Origin, parse_origin
from dynctl.http.responder import Responder
from dynctl.http.server import Server
from dynctl.http.upstream import Upstream


class Transport(asyncio.Transport):
    """Remembers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    @property
    def text(self) -> bytes:
        return b"".join(self.sent)


def request(method: str = "GET", *, http10: bool = False, keep_alive: bool = True) -> Request:
    return Request(
        method=method,
        target=b"/",
        path="/",
        headers=[],
        body=b"",
        received=0.0,
        http10=http10,
        keep_alive=keep_alive,
    )


def responder(asked: Request | None = None) -> tuple[Transport, Responder]:
    transport = Transport()
    return transport, Responder(transport, asked or request())


def test_hop_by_hop_fields_and_those_that_connection_names_stay_behind() -> None:
    headers: Headers = [
        (b"connection", b"close, X-Mine"),
        (b"keep-alive", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"x-mine", b"1"),
        (b"content-type", b"a"),
        (b"content-type", b"b"),
    ]
    assert end_to_end(headers) == [(b"content-type", b"a"), (b"content-type", b"b")]


def test_heads() -> None:
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(599) == b"HTTP/1.1 599 \r\n"
    assert encode_head(b"X\r\n", [(b"a", b"1"), (b"b", b"2")]) == b"X\r\na: 1\r\nb: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:8001", Origin("127.0.0.1", 8001)),
        ("http://host/", Origin("host", 80)),
        ("https://host/base/", Origin("host", 443, True, b"/base")),
        ("http://[::1]:9", Origin("::1", 9)),
    ],
)
def test_origins(url: str, origin: Origin) -> None:
    assert parse_origin(url) == origin


def test_authority_of_an_ipv6_address() -> None:
    assert parse_origin("http://[::1]:9").authority == b"[::1]:9"


@pytest.mark.parametrize(
    "url", ["", "host:80", "ftp://a", "http://", "http://a:x", "http://a:99999", "http://u@a", "http://a?b"]
)
def test_what_is_not_an_origin(url: str) -> None:
    with pytest.raises(UsageError):
        parse_origin(url)


def test_chunks_leave_at_message_boundaries_with_the_head_on_the_first() -> None:
    transport, subject = responder()
    subject.start(200, [(b"a", b"1")])
    assert transport.sent == []
    subject.write(b"hello")
    subject.write(b"")
    subject.write(b"you")
    subject.end()
    assert transport.sent == [
        b"HTTP/1.1 200 OK\r\na: 1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"3\r\nyou\r\n",
        b"0\r\n\r\n",
    ]


def test_a_known_length_is_not_chunked() -> None:
    transport, subject = responder()
    subject.simple(404, [], b"abc")
    assert transport.text == b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc"
    assert subject.keep_alive


@pytest.mark.parametrize("body", [b"ab", b"abcd"])
def test_a_body_that_betrays_its_length_cuts_the_connection(body: bytes) -> None:
    transport, subject = responder()
    subject.start(200, [(b"content-length", b"3")])
    subject.write(body)
    subject.end()
    assert transport.aborted


def test_head_and_204_have_no_body() -> None:
    transport, subject = responder(request("HEAD"))
    subject.simple(200, [], b"abc")
    assert transport.text == b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"
    transport, subject = responder(request("HEAD"))
    subject.start(200, [])
    subject.write(b"abc")
    subject.end()
    assert transport.text == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    transport, subject = responder()
    subject.start(204, [])
    subject.end()
    assert transport.text == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_old_clients_get_no_chunks() -> None:
    transport, subject = responder(request(http10=True, keep_alive=True))
    subject.start(200, [])
    subject.write(b"abc")
    subject.end()
    assert transport.text == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc"
    assert not subject.keep_alive
    transport, subject = responder(request(http10=True, keep_alive=True))
    subject.simple(200, [], b"")
    assert transport.text == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"


def test_pressure_reaches_whoever_asked() -> None:
    _, subject = responder()
    calls: list[str] = []
    subject.pressure(False)
    subject.on_pressure(lambda: calls.append("pause"), lambda: calls.append("resume"))
    subject.pressure(True)
    subject.pressure(False)
    assert calls == ["pause", "resume", "pause"]
    assert not subject.writable


def test_misuse_is_told() -> None:
    _, subject = responder()
    with pytest.raises(RuntimeError):
        subject.write(b"a")
    with pytest.raises(RuntimeError):
        subject.end()
    subject.simple(200, [], b"")
    with pytest.raises(RuntimeError):
        subject.start(200, [])
    with pytest.raises(RuntimeError):
        subject.write(b"a")


async def test_a_connection_that_was_accepted_while_stopping_is_cut() -> None:
    async def handler(request: Request, responder: Responder) -> None:
        raise AssertionError("no request was sent")

    server = Server(handler)
    server.stop_accepting()
    transport = Transport()
    connection = Connection(server, asyncio.get_running_loop())
    connection.connection_made(transport)
    assert transport.aborted
    connection.connection_lost(None)
    await server.close()


async def test_a_connection_that_comes_up_while_the_client_closes_is_cut() -> None:
    client = Client()
    await client.close()
    transport = Transport()
    upstream = Upstream(client, Origin("h", 1))
    upstream.connection_made(transport)
    assert transport.aborted
    upstream.connection_lost(None)
    await client.close()
