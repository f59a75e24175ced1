"""One client connection: writes a request, parses its answer, hands the body on as it was read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, cast

import httptools

from dynctl.http.call import Call, ClientError
from dynctl.http.message import Headers
from dynctl.http.origin import Origin
from dynctl.http.passage import Passage

if TYPE_CHECKING:
    from dynctl.http.client import Client

_SIZE_LINES = {len(line) + size + 2: line for size in range(1, 4096) for line in (b"%x\r\n" % size,)}
"""By the length of a chunk in its framing, the line that its size makes: for a check without arithmetic."""


class Upstream(asyncio.Protocol):
    """Carries one call at a time. All body bytes of one read are handed on together.

    A read of whole chunks need not be parsed where the call takes `chunks`: the parser, which stands between two chunks
    then, is not shown it. Streaming engines send an event a chunk, so most reads are such. From the first one on the
    client's ferry reads the connection, until the answer ends.
    """

    __slots__ = (
        "_aboard",
        "_between_chunks",
        "_call",
        "_client",
        "_complete",
        "_delimited",
        "_headers",
        "_keep_alive",
        "_parser",
        "_passage",
        "_pieces",
        "_reading",
        "_reused",
        "_saw_bytes",
        "_status",
        "_transport",
        "idle_since",
        "origin",
    )

    def __init__(self, client: Client, origin: Origin) -> None:
        self._client = client
        self.origin = origin
        self._transport: asyncio.Transport | None = None
        self._passage: Passage | None = None
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._call: Call | None = None
        self._reused = False
        self._reading = True
        self._aboard: int | None = None
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._saw_bytes = False
        self._between_chunks = False
        self._status = 0
        self._headers: Headers = []
        self._pieces: list[bytes] = []
        self._complete = False
        self._delimited = False
        self._keep_alive = False

    # for Call and Client

    def carry(self, call: Call) -> None:
        """Write the call's request."""
        self._reset()
        self._call = call
        call.carried_by(self)
        if self._passage is not None:
            self._passage.write(call.head + call.body)

    def pause(self) -> None:
        """Stop reading."""
        if self._reading and self._transport is not None:
            self._reading = False
            if self._aboard is None:
                self._transport.pause_reading()
            self._leave()

    def resume(self) -> None:
        """Read on."""
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.resume_reading()

    def close(self) -> None:
        """Close at once; the call, if there is one, gets no further callback."""
        self._call = None
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    # transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server accepted."""
        self._transport = cast("asyncio.Transport", transport)
        self._passage = Passage(self._transport)
        self._client.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer; without a call they are a fault of the server's."""
        call, parser = self._call, self._parser
        if call is None or parser is None:
            self.close()
            return
        if self._between_chunks and call.chunks is not None and are_chunks(data):
            if self._aboard is None and self._reading:
                self._board()
            call.chunks.write(data)
            return
        self._saw_bytes = True
        fault: str | None = None
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            fault = "the server switched protocols unasked"
        except httptools.HttpParserError as error:
            fault = f"the answer is not valid HTTP: {error}"
        if not data.endswith(b"\r\n"):  # part of the next chunk's size may have come
            self._between_chunks = False
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            call.sink.on_body(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._complete and not call.over:
            self._answered(call, reusable=fault is None and self._keep_alive)
        elif fault is not None and not call.over:
            self.close()
            call.failed(ClientError("protocol", fault))

    def eof_received(self) -> bool:
        """The server closed; connection_lost says what that means for the call."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed: an answer delimited by the close is complete now, any other is cut short or asked for again."""
        call, self._call = self._call, None
        self._leave()
        self._transport = self._passage = None
        self._parser = None
        self._client.lost(self)
        if call is None or call.over:
            return
        if self._status and not self._delimited and exc is None:
            call.ended()
        elif self._reused and not self._saw_bytes and call.resend:
            call.retry()
        else:
            when = "in the middle of its answer" if self._saw_bytes else "before it answered"
            kind: Literal["stale", "closed"] = "stale" if self._reused and not self._saw_bytes else "closed"
            call.failed(ClientError(kind, f"the server closed the connection {when}"))

    # for Ferry

    def ashore(self) -> None:
        """The transport reads again."""
        self._leave()
        if self._transport is not None and self._reading:
            self._transport.resume_reading()

    def cut(self) -> None:
        """Closed as by the server: connection_lost tells the call."""
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    def _board(self) -> None:
        """Have the ferry read, where what comes needs no deciphering."""
        if self._transport is None or self._passage is None or self._passage.descriptor is None:
            return
        self._transport.pause_reading()
        self._aboard = self._passage.descriptor
        self._client.ferry.board(self._aboard, self)

    def _leave(self) -> None:
        if self._aboard is not None:
            self._client.ferry.leave(self._aboard, self)
            self._aboard = None

    # parser callbacks

    def on_message_begin(self) -> None:
        """The first byte of an answer; a second answer to one request makes the connection unusable."""
        if self._complete:
            self._keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head (or a trailer, which is dropped)."""
        if not self._status:
            name = name.lower()
            if name in (b"content-length", b"transfer-encoding"):
                self._delimited = True
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: hand it on, unless it is an interim one."""
        call, parser = self._call, self._parser
        if call is None or parser is None or self._complete:
            return
        status = parser.get_status_code()
        if 100 <= status < 200:
            return
        self._status = status
        call.headed(status, self._headers)
        if call.bodiless:  # the parser would wait for the body that the length announces
            self._complete = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if not self._complete:
            self._pieces.append(data)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """A chunk has ended."""
        self._between_chunks = True

    def on_message_complete(self) -> None:
        """The answer is whole, or an interim one is."""
        call, parser = self._call, self._parser
        if not self._status:
            self._headers = []
            self._delimited = False
        elif call is not None and parser is not None and not call.bodiless and not self._complete:
            self._complete = True
            self._keep_alive = parser.should_keep_alive()

    def _answered(self, call: Call, *, reusable: bool) -> None:
        """The call is done; the connection goes back to the pool before anybody can need it."""
        self._call = None
        if self._aboard is not None:
            self.ashore()
        if reusable and self._transport is not None and not self._transport.is_closing():
            self.resume()
            self._reused = True
            self._client.release(self)
        else:
            self.close()
        call.ended()


def are_chunks(data: bytes) -> bool:
    """Whether these bytes are whole chunks (RFC 9112, 7.1), not the last, without extensions."""
    size_line = _SIZE_LINES.get(len(data))
    if size_line is not None and data.startswith(size_line) and data.endswith(b"\r\n"):
        return True
    at, count = 0, len(data)
    while at < count:
        line_end = data.find(b"\r\n", at + 1, at + 10)
        digits = data[at:line_end]
        if line_end < 0 or not digits.isalnum():  # int() would take signs, spaces and underscores too
            return False
        try:
            size = int(digits, 16)
        except ValueError:
            return False
        at = line_end + size + 4
        if size == 0 or data[at - 2 : at] != b"\r\n":
            return False
    return at == count > 0
