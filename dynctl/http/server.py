"""The listening side: sockets, the set of connections, their time limits, and an orderly end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Awaitable, Callable

from dynctl.http.connection import Connection
from dynctl.http.heads import Heads
from dynctl.http.limits import Limits
from dynctl.http.message import Request
from dynctl.http.responder import Responder

Handler = Callable[[Request, Responder], Awaitable[None]]
_SWEEP_S = 1.0
_BACKLOG = 2048


def plain_error(status: int, message: str) -> tuple[bytes, bytes]:
    """Content type and body of the core's own refusals, unless the server is given another way to word them."""
    return b"text/plain; charset=utf-8", f"{message}\n".encode()


def report_exception(error: BaseException) -> None:
    """Default place for exceptions that a handler did not expect: the standard error stream."""
    traceback.print_exception(error, file=sys.stderr)


class Server:
    """An HTTP/1.1 server: one handler task per request, one request at a time per connection.

    `error_body(status, message)` words the core's own refusals. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.perf_counter,
        error_body: Callable[[int, str], tuple[bytes, bytes]] = plain_error,
        on_exception: Callable[[BaseException], None] = report_exception,
    ) -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.heads = Heads(self.limits)
        self.clock = clock
        self.error_body = error_body
        self.on_exception = on_exception
        self.stopping = False
        self._connections: set[Connection] = set()
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._gone = asyncio.Event()
        self._gone.set()
        self._listeners: list[asyncio.Server] = []
        self._sweep: asyncio.TimerHandle | None = None

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> asyncio.Server:
        """Accept connections on a bound socket (several calls: several sockets), over TLS where that is given."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Connection(self, loop), sock=sock, backlog=_BACKLOG, ssl=tls)
        self._listeners.append(listener)
        return listener

    def leave(self, listener: asyncio.Server) -> None:
        """Accept no more on that one; connections that it has brought go on."""
        self._listeners.remove(listener)
        listener.close()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def stop_accepting(self) -> None:
        """Close the listeners and idle connections; busy ones close after their present response."""
        self.stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in tuple(self._connections):
            connection.finish_soon()

    async def drain(self, timeout_s: float) -> bool:
        """Stop accepting and wait for requests under way; False when some had to be cut after `timeout_s`."""
        self.stop_accepting()
        end = self.clock() + timeout_s
        done = await self._within(self._idle, end)
        if done:
            for connection in tuple(self._connections):
                connection.finish_soon()
            await self._within(self._gone, min(end, self.clock() + self.limits.linger_s))
        await self.close()
        return done

    async def close(self) -> None:
        """Cut whatever is left and wait until the handlers are gone."""
        self.stop_accepting()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        tasks = [c.task for c in self._connections if c.task is not None]
        for connection in tuple(self._connections):
            connection.close()
        if tasks:
            await asyncio.wait(tasks)
        await self._gone.wait()
        for listener in self._listeners:
            await listener.wait_closed()

    async def _within(self, event: asyncio.Event, end: float) -> bool:
        try:
            await asyncio.wait_for(event.wait(), max(0.0, end - self.clock()))
        except TimeoutError:
            return False
        return True

    def opened(self, connection: Connection) -> None:
        """A connection's word that it is up; the sweep of time limits runs while there are any."""
        self._connections.add(connection)
        self._gone.clear()
        if self._sweep is None:
            self._arm()

    def closed(self, connection: Connection) -> None:
        """A connection's word that it is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._gone.set()

    def busy(self, change: int) -> None:
        """A connection's word that a handler began (+1) or ended (-1)."""
        self._busy += change
        if self._busy:
            self._idle.clear()
        else:
            self._idle.set()

    def _arm(self) -> None:
        limits = self.limits
        shortest = min(limits.head_s, limits.body_stall_s, limits.idle_s, limits.write_stall_s, limits.linger_s)
        self._sweep = asyncio.get_running_loop().call_later(min(_SWEEP_S, shortest / 2), self._check_deadlines)

    def _check_deadlines(self) -> None:
        now = self.clock()
        for connection in tuple(self._connections):
            if connection.deadline is not None and connection.deadline <= now:
                connection.timed_out()
        self._sweep = None
        if self._connections:
            self._arm()
