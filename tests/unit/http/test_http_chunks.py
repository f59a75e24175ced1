"""Whole chunks go past the parser, wherever reads cut the answer, and what is no whole chunk does not."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from dynctl.http.call import Call, ClientError
from dynctl.http.client import Client
from dynctl.http.message import Headers
from dynctl.http.origin import Origin
from dynctl.http.passage import Passage
from dynctl.http.upstream import Upstream, are_chunks

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
PARTS = [HEAD, b"3\r\none\r\n", b"03\r\ntwo\r\n", b"A\r\nand\r\n4\r\nso\r\n", b"5\r\nthree\r\n", b"0\r\n\r\n"]
SAID = b"onetwoand\r\n4\r\nsothree"


class Engine(asyncio.Transport):
    """The engine's side: takes the request."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


class Reader:
    """Sink and passage of one answer; `said` is the body whichever way it came."""

    def __init__(self) -> None:
        self.said = b""
        self.whole = 0
        self.ended = False
        self.error: ClientError | None = None
        self.call: Call | None = None

    def on_head(self, status: int, headers: Headers) -> None:
        pass

    def on_body(self, data: bytes) -> None:
        self.said += data
        assert self.call is not None
        self.call.chunks = cast("Passage", self)

    def write(self, chunk: bytes) -> None:
        while chunk:
            digits, _, rest = chunk.partition(b"\r\n")
            size = int(digits, 16)
            assert rest[size : size + 2] == b"\r\n"
            self.said += rest[:size]
            self.whole += 1
            chunk = rest[size + 2 :]

    def on_end(self) -> None:
        self.ended = True

    def on_error(self, error: ClientError) -> None:
        self.error = error


async def answer(reads: list[bytes]) -> Reader:
    reader = Reader()
    client = Client()
    origin = Origin("a", 1)
    upstream = Upstream(client, origin)
    upstream.connection_made(Engine())
    reader.call = Call(client, origin, b"", b"", reader, bodiless=False, resend=False)
    upstream.carry(reader.call)
    for data in reads:
        upstream.data_received(data)
    return reader


async def test_a_read_that_are_chunks_is_passed_whole() -> None:
    reader = await answer(PARTS)
    assert (reader.said, reader.whole, reader.ended) == (SAID, 3, True)


async def test_wherever_reads_cut_it_the_answer_is_the_same() -> None:
    text = b"".join(PARTS)
    for first in range(1, len(text)):
        for second in (first, *range(first + 1, len(text), 7)):
            cuts = [text[:first], text[first:second], text[second:]]
            reader = await answer([cut for cut in cuts if cut])
            assert (reader.said, reader.ended) == (SAID, True), (first, second)


@pytest.mark.parametrize("bad", [b"+3\r\nabc\r\n", b"3_\r\nabc\r\n", b" 3\r\nabc\r\n", b"g\r\nabc\r\n", b"3\r\nabcd\n"])
async def test_what_is_no_chunk_is_a_fault_as_ever(bad: bytes) -> None:
    reader = await answer([*PARTS[:2], bad, b"0\r\n\r\n"])
    assert reader.whole == 0
    assert reader.error is not None or not reader.ended


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"3\r\nabc\r\n", True),
        (b"1F\r\n" + 31 * b"x" + b"\r\n", True),
        (b"0\r\n\r\n", False),
        (b"3;a=b\r\nabc\r\n", False),
        (b"3\r\nabc\r\n2\r\nab\r\n", True),
        (b"3\r\nabc\r\n0\r\n\r\n", False),
        (b"3\r\nabc\r\n3\r\nabc\r", False),
        (b"3\r\nabc\r\n4\r\nabc\r\n", False),
        (b"1000\r\n" + 4096 * b"x" + b"\r\n", True),
        (b"3\r\nabc", False),
        (b"3\r\nabcd\n", False),
        (b"\r\n\r\n", False),
        (b"zz\r\nabc\r\n", False),
        (b"000000000003\r\nabc\r\n", False),
        (b"", False),
    ],
)
def test_whole_chunks(data: bytes, whole: bool) -> None:
    assert are_chunks(data) is whole
