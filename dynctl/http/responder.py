"""The answering half of one exchange on a server connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dynctl.http.message import Headers, Request, encode_head, find, status_line
from dynctl.http.passage import Passage

_BODILESS = frozenset({204, 304})


class Responder:
    """Writes one response. The head is held back until the first body bytes or the end, and leaves with them.

    The framing follows the head: `content-length` when it is given, else chunked, else (HTTP/1.0) until close.
    `also`: fields that go with every head. When the client goes away the handler's task is cancelled and writes turn
    into nothing.
    """

    __slots__ = (
        "_chunked",
        "_head",
        "_keep_alive",
        "_no_body",
        "_on_pause",
        "_on_resume",
        "_passage",
        "_remaining",
        "_request",
        "_transport",
        "also",
        "ended",
        "started",
        "status",
        "writable",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        request: Request,
        *,
        passage: Passage | None = None,
        writable: bool = True,
    ) -> None:
        self._transport = transport
        self._passage = passage or Passage(transport)
        self._request = request
        self._keep_alive = request.keep_alive
        self._head: bytes | None = None
        self._chunked = False
        self._no_body = request.method == "HEAD"
        self._remaining: int | None = None
        self._on_pause: Callable[[], None] | None = None
        self._on_resume: Callable[[], None] | None = None
        self.also: Headers = []
        self.started = False
        self.ended = False
        self.writable = writable
        self.status = 0

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may carry another request after this response."""
        return self._keep_alive

    @property
    def peer(self) -> str | None:
        """The client's address; None over a unix socket."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if isinstance(name, tuple) and name else None

    def close_after(self) -> None:
        """Close the connection after this response (said in the head when that has not left yet)."""
        self._keep_alive = False

    def on_pressure(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Call `pause` when the client reads slower than it is written to, `resume` when it has caught up."""
        self._on_pause, self._on_resume = pause, resume
        if not self.writable:
            pause()

    def start(self, status: int, headers: Headers) -> None:
        """Set status and fields. Hop-by-hop fields are the responder's own: leave them out of `headers`."""
        if self.started:
            raise RuntimeError("the response has been started")
        self.started = True
        self.status = status
        fields = [*headers, *self.also]
        length = find(fields, b"content-length")
        if status in _BODILESS:
            self._no_body = True
        elif length is not None:
            self._remaining = None if self._no_body else int(length)
        elif self._request.http10:
            self._keep_alive = False
        else:
            self._chunked = not self._no_body
            fields.append((b"transfer-encoding", b"chunked"))
        if not self._keep_alive:
            fields.append((b"connection", b"close"))
        elif self._request.http10:
            fields.append((b"connection", b"keep-alive"))
        self._head = encode_head(status_line(status), fields)

    def write(self, data: bytes) -> None:
        """Send body bytes, as one chunk where the framing is chunked. Bytes after the end are an error."""
        if self.ended or not self.started:
            raise RuntimeError("body bytes outside a response")
        if not data or self._no_body:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        elif self._remaining is not None:
            self._remaining -= len(data)
        if self._head is not None:
            data, self._head = self._head + data, None
            self._passage.write(data)
        else:
            self._send(data)

    def passage(self) -> Passage | None:
        """The short way for whole chunks in their framing, until `end`; None unless body bytes leave as chunks now."""
        return self._passage if self._chunked and self._head is None and not self.ended else None

    def end(self) -> None:
        """Finish the response. A body shorter or longer than its content-length ends the connection hard."""
        if self.ended:
            return
        if not self.started:
            raise RuntimeError("the response has not been started")
        self._over()
        if self._remaining:
            self._transport.abort()
            return
        tail = b"0\r\n\r\n" if self._chunked else b""
        if self._head is not None:
            tail, self._head = self._head + tail, None
        if tail:
            self._send(tail)

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():  # uvloop's transport fails where asyncio's drops what is written
            self._transport.write(data)

    def simple(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole response in one go."""
        self.start(status, [*headers, (b"content-length", b"%d" % len(body))])
        self.write(body)
        self.end()

    def abort(self) -> None:
        """Cut the connection, so that the client sees the response as broken and not as complete."""
        self._over()
        self._keep_alive = False
        self._transport.abort()

    def _over(self) -> None:
        self.ended = True
        self._on_pause = self._on_resume = None  # of whoever brought the answer, who refers to this

    def pressure(self, writable: bool) -> None:
        """The connection's word that its send buffer filled up or drained."""
        self.writable = writable
        callback = self._on_resume if writable else self._on_pause
        if callback is not None and not self.ended:
            callback()
