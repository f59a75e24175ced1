"""One server connection: one handler at a time, refusals, time limits, an orderly close."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from dynctl.http.direct import start_task
from dynctl.http.limits import Refusal
from dynctl.http.message import Request, encode_head, status_line
from dynctl.http.passage import Passage
from dynctl.http.reader import RequestReader
from dynctl.http.responder import Responder

if TYPE_CHECKING:
    from dynctl.http.server import Server

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """Requests that arrive while one is being answered wait in a queue, and reading stops until it is empty again.

    Reading goes on while a single request is answered, so that a client that leaves is noticed: its handler's task is
    cancelled. `deadline` is looked at by the server's sweep: None while a handler runs and the client keeps reading.
    """

    __slots__ = (
        "_linger_since",
        "_loop",
        "_passage",
        "_reader",
        "_reading",
        "_refusal",
        "_responder",
        "_server",
        "_transport",
        "_unsent_bytes",
        "_writable",
        "deadline",
        "task",
    )

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._reader = RequestReader(server.limits, server.clock, server.heads)
        self._transport: asyncio.Transport | None = None
        self._passage: Passage | None = None
        self._responder: Responder | None = None
        self._refusal: Refusal | None = None
        self._linger_since: float | None = None
        self._unsent_bytes = 0
        self._reading = True
        self._writable = True
        self.task: asyncio.Task[None] | None = None
        self.deadline: float | None = None

    # transport callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._passage = Passage(self._transport)
        self._transport.set_write_buffer_limits(high=self._server.limits.write_buffer_bytes)
        self.deadline = self._server.clock() + self._server.limits.head_s
        self._server.opened(self)
        if self._server.stopping:  # accepted just before the listener closed
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._transport = None
        self._reader.close()
        self._server.closed(self)
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        """The send buffer is full."""
        self._writable = False
        self.deadline = self._server.clock() + self._server.limits.write_stall_s
        if self._responder is not None:
            self._responder.pressure(False)

    def resume_writing(self) -> None:
        """The send buffer has room again."""
        self._writable = True
        self._set_deadline()
        if self._responder is not None:
            self._responder.pressure(True)

    def data_received(self, data: bytes) -> None:
        """Bytes of requests; after a refusal they are thrown away until the client closes."""
        transport = self._transport
        if transport is None or self._refusal is not None or self._linger_since is not None:
            return
        reader = self._reader
        was_in_head = reader.in_head
        try:
            reader.feed(data)
        except Refusal as refusal:
            self._refusal = refusal
        if self.task is None:
            self._next()
            if not (was_in_head and reader.in_head):  # a head has one time limit, however slowly it trickles in
                self._set_deadline()
        elif reader.requests and self._reading:
            self._reading = False
            transport.pause_reading()

    def eof_received(self) -> bool:
        """A client that closes its sending half is taken to have left: it can't be told from one that did."""
        return False

    # requests, one after the other

    def _next(self) -> None:
        """Start the handler of the oldest waiting request; with none waiting, give a pending refusal or read on."""
        transport = self._transport
        if transport is None:
            return
        requests = self._reader.requests
        request = requests.popleft() if requests else None
        if not requests and not self._reading and self._refusal is None:
            self._reading = True
            transport.resume_reading()
        if request is not None:
            self._start(transport, request)
        elif self._refusal is not None:
            self._send_refusal(transport, self._refusal)
        elif self._reader.wants_continue:
            self._reader.wants_continue = False
            transport.write(_CONTINUE)

    def _start(self, transport: asyncio.Transport, request: Request) -> None:
        responder = Responder(transport, request, passage=self._passage, writable=self._writable)
        if self._server.stopping:
            responder.close_after()
        self._responder = responder
        self._server.busy(+1)
        self.task = start_task(self._run(request, responder), self._loop)
        self.task.add_done_callback(self._finished)

    async def _run(self, request: Request, responder: Responder) -> None:
        try:
            await self._server.handler(request, responder)
            if not responder.ended:
                raise RuntimeError("the handler returned without ending its response")
        except Exception as error:
            self._server.on_exception(error)
            if responder.started:
                responder.abort()
            else:
                kind, body = self._server.error_body(500, "internal error")
                responder.close_after()
                responder.simple(500, [(b"content-type", kind)], body)

    def _finished(self, task: asyncio.Task[None]) -> None:
        responder, self._responder, self.task = self._responder, None, None
        self._server.busy(-1)
        transport = self._transport
        if transport is None or responder is None:
            return
        if task.cancelled() and not responder.ended:
            transport.abort()
        elif not responder.keep_alive or (self._server.stopping and not self._reader.requests):
            self._linger(transport)
        else:
            self._next()
            self._set_deadline()

    # endings

    def _send_refusal(self, transport: asyncio.Transport, refusal: Refusal) -> None:
        kind, body = self._server.error_body(refusal.status, refusal.message)
        fields = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        transport.write(encode_head(status_line(refusal.status), fields) + body)
        self._linger(transport)

    def _linger(self, transport: asyncio.Transport) -> None:
        """Close after what was written. The read side stays open a moment: closing on unread bytes would send a reset
        that can overtake the response."""
        if not self._reading:
            self._reading = True
            transport.resume_reading()
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self._linger_since = self._server.clock()
        self.deadline = self._linger_since + self._server.limits.linger_s

    def finish_soon(self) -> None:
        """The server is stopping: close now when idle, else after the response under way."""
        if self.task is None and self._transport is not None and not self._reader.in_message:
            self._transport.close()
        elif self._responder is not None and not self._responder.started:
            self._responder.close_after()

    def close(self) -> None:
        """Cut the connection; its handler is cancelled."""
        if self._transport is not None:
            self._transport.abort()
        if self.task is not None:
            self.task.cancel()

    def timed_out(self) -> None:
        """The deadline passed: a half-received request gets 408, everything else is closed."""
        self.deadline = None
        transport = self._transport
        if transport is None:
            return
        if self._linger_since is not None:
            self._linger_on(transport, self._linger_since)
        elif not self._writable:
            transport.abort()
        elif self.task is None and self._reader.in_message:
            self._refusal = Refusal(408, "the request did not arrive in time")
            self._send_refusal(transport, self._refusal)
        elif self.task is None:
            transport.close()

    def _linger_on(self, transport: asyncio.Transport, since: float) -> None:
        """A client that still reads what it was sent may go on, until it stalls."""
        now = self._server.clock()
        unsent = transport.get_write_buffer_size()
        if unsent != self._unsent_bytes:
            self._unsent_bytes, self._linger_since = unsent, now
        elif unsent == 0 or now - since >= self._server.limits.write_stall_s:
            transport.abort()
            return
        self.deadline = now + self._server.limits.linger_s

    def _set_deadline(self) -> None:
        limits = self._server.limits
        if self._linger_since is not None or not self._writable:
            return
        if self.task is not None:
            self.deadline = None
        elif self._reader.in_head:
            self.deadline = self._server.clock() + limits.head_s
        elif self._reader.in_message:
            self.deadline = self._server.clock() + limits.body_stall_s
        else:
            self.deadline = self._server.clock() + limits.idle_s
