"""A streaming HTTP/1.1 client: pooled keep-alive connections, answers delivered by callbacks."""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Awaitable, Callable

import msgspec

from dynctl.http.call import Call, ClientError, Sink
from dynctl.http.direct import Direct
from dynctl.http.ferry import Ferry
from dynctl.http.message import Headers, encode_head
from dynctl.http.origin import Origin
from dynctl.http.upstream import Upstream

Connect = Callable[[Callable[[], Upstream], Origin], Awaitable[Upstream]]
"""Connects to an origin, and gives the connection to a new Upstream. Raises OSError."""

_NEARLY = 0.8
_MIN_IDLE_S = 0.5


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


class Client:
    """Sends requests over pooled connections. Must be used from the event loop's thread.

    A pooled connection that has been idle for `idle_s` is not used again, nor one that has been so for nearly as long
    as the last one that its server closed: vLLM does so after 5 s by default, perhaps just when a request is written.
    A request that was written to a pooled connection which then closed before any byte of an answer is sent once more,
    on a new connection. `tls`: whom https trusts, where not those on the system's list.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float = 5.0,
        idle_s: float = 60.0,
        max_idle: int = 1024,
        clock: Callable[[], float] = time.monotonic,
        connect: Connect | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._connect_by = connect or functools.partial(by_loop, tls=tls)
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._max_idle = max_idle
        self._clock = clock
        self._idle: dict[Origin, list[Upstream]] = {}
        self._keeps_s: dict[Origin, float] = {}
        """How long a connection may be idle, of servers that have closed one."""
        self._open: set[Upstream] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False
        self.ferry = Ferry()
        self._gone = asyncio.Event()
        self._gone.set()

    def send(
        self,
        origin: Origin,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes,
        sink: Sink,
        *,
        head_timeout_s: float | None = None,
        resend: bool = True,
    ) -> Call:
        """Send a request; `sink` gets the answer. `host` and `content-length` are added to `headers`.

        `head_timeout_s` runs until the head of the answer; over, the call fails with kind "timeout". Without `resend`
        a request is never written twice: where a pooled connection closes on it, the call fails with kind "stale".
        """
        fields = [(b"host", origin.authority), *headers]
        if body or method in ("POST", "PUT", "PATCH"):
            fields.append((b"content-length", b"%d" % len(body)))
        head = encode_head(b"%b %b%b HTTP/1.1\r\n" % (method.encode("ascii"), origin.prefix, target), fields)
        call = Call(self, origin, head, body, sink, bodiless=method == "HEAD", resend=resend)
        if head_timeout_s is not None:
            call.arm(head_timeout_s)
        self.dispatch(call)
        return call

    async def fetch(
        self,
        origin: Origin,
        method: str,
        target: bytes,
        headers: Headers,
        body: bytes,
        *,
        timeout_s: float | None = None,
    ) -> Response:
        """Send a request and gather its whole answer within `timeout_s`. Raises ClientError.

        Cancelling it closes the connection, so that the server stops working on the request.
        """
        loop = asyncio.get_running_loop()
        gatherer = Gatherer(loop)
        call = self.send(origin, method, target, headers, body, gatherer)
        late = ClientError("timeout", f"no complete answer within {timeout_s:g} s") if timeout_s is not None else None
        timer = loop.call_later(timeout_s or 0.0, call.fail, late) if late else None
        try:
            return await gatherer.done
        finally:
            if timer:
                timer.cancel()
            call.abort()

    def dispatch(self, call: Call, *, fresh: bool = False) -> None:
        """Put a call on a pooled connection, or on a new one."""
        connection = None if fresh else self._take(call.origin)
        if connection is not None:
            connection.carry(call)
            return
        task = asyncio.get_running_loop().create_task(self._connect(call))
        call.connecting = task
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def open(self, origin: Origin, count: int) -> None:
        """Open `count` idle connections, so that the next calls wait for none. Raises ClientError."""
        for _ in range(count):
            self.release(await self._connected(origin))

    def forget(self, origin: Origin) -> None:
        """Close the idle connections to a server that is gone."""
        self._keeps_s.pop(origin, None)
        for connection in self._idle.pop(origin, []):
            connection.close()

    def idle(self, origin: Origin) -> int:
        """How many connections to that server wait for a request."""
        return len(self._idle.get(origin, ()))

    async def close(self) -> None:
        """Close every connection; calls under way get no further callbacks."""
        self._closed = True
        for task in tuple(self._connecting):
            task.cancel()
        for connection in tuple(self._open):
            connection.close()
        self._idle.clear()
        if self._connecting:
            await asyncio.wait(self._connecting)
        await self._gone.wait()
        self.ferry.close()

    # for Upstream

    def opened(self, connection: Upstream) -> None:
        """A connection is up."""
        self._open.add(connection)
        self._gone.clear()
        if self._closed:  # it was on its way while the client closed
            connection.close()

    def release(self, connection: Upstream) -> None:
        """A connection finished its call and may carry another."""
        idle = self._idle.setdefault(connection.origin, [])
        if self._closed or len(idle) >= self._max_idle:
            connection.close()
            return
        connection.idle_since = self._clock()
        idle.append(connection)

    def lost(self, connection: Upstream) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        if not self._open:
            self._gone.set()
        idle = self._idle.get(connection.origin)
        if idle is not None and connection in idle:  # else it was closed here
            idle.remove(connection)
            kept_s = self._clock() - connection.idle_since
            self._keeps_s[connection.origin] = max(_MIN_IDLE_S, _NEARLY * kept_s)

    def _take(self, origin: Origin) -> Upstream | None:
        """The most recently used idle connection, if it is fresh enough; staler ones are closed."""
        idle = self._idle.get(origin)
        if not idle:
            return None
        connection = idle.pop()
        if self._clock() - connection.idle_since < min(self._idle_s, self._keeps_s.get(origin, self._idle_s)):
            return connection
        for stale in (connection, *idle):  # the others have been idle for longer still
            stale.close()
        idle.clear()
        return None

    async def _connect(self, call: Call) -> None:
        try:
            connection = await self._connected(call.origin)
        except ClientError as error:
            call.failed(error)
        else:
            call.connecting = None
            if call.over:
                connection.close()
            else:
                connection.carry(call)

    async def _connected(self, origin: Origin) -> Upstream:
        """A new connection. Raises ClientError."""
        opening = self._connect_by(lambda: Upstream(self, origin), origin)
        try:
            connection = await asyncio.wait_for(opening, self._connect_timeout_s)
        except TimeoutError:
            raise ClientError("connect", f"no connection within {self._connect_timeout_s:g} s") from None
        except OSError as error:
            raise ClientError("connect", error.strerror or str(error)) from None
        return connection


async def by_loop(make: Callable[[], Upstream], origin: Origin, tls: ssl.SSLContext | None = None) -> Upstream:
    """Connects by the event loop's own means. `tls`: whom https trusts, if not the system's list. OSError."""
    loop = asyncio.get_running_loop()
    _, upstream = await loop.create_connection(
        make, origin.host, origin.port, ssl=(tls or True) if origin.tls else None
    )
    return upstream


class Gatherer:
    """Sink that gathers a whole answer into `done`, which fails with ClientError."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.done: Direct[Response] = Direct(loop)
        self._status = 0
        self._headers: Headers = []
        self._body: list[bytes] = []

    def on_head(self, status: int, headers: Headers) -> None:
        """Keep status and fields."""
        self._status, self._headers = status, headers

    def on_body(self, data: bytes) -> None:
        """Keep a piece."""
        self._body.append(data)

    def on_end(self) -> None:
        """Run who waits."""
        if not self.done.done():
            self.done.set_result(Response(self._status, self._headers, b"".join(self._body)))

    def on_error(self, error: ClientError) -> None:
        """Have it fail."""
        if not self.done.done():
            self.done.set_exception(error)
