"""One request of the client on its way: what it carries, who gets the answer, how it is stopped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, Protocol

from dynctl.http.message import Headers
from dynctl.http.origin import Origin
from dynctl.http.passage import Passage

if TYPE_CHECKING:
    from dynctl.http.client import Client
    from dynctl.http.upstream import Upstream


class ClientError(Exception):
    """Why there is no (complete) answer.

    connect: no connection came about · closed: the server closed early · stale: a pooled connection closed before any
    byte of an answer, perhaps before the request was read · timeout: the head (or, for a gathered answer, the end) did
    not come in time · protocol: what came is not HTTP · withdrawn: the caller lost interest in that server.
    """

    def __init__(
        self, kind: Literal["connect", "closed", "stale", "timeout", "protocol", "withdrawn"], message: str
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Sink(Protocol):
    """Gets an answer: one on_head, any number of on_body (one per read), then one of on_end and on_error."""

    def on_head(self, status: int, headers: Headers) -> None:
        """Status and fields, names in lower case."""

    def on_body(self, data: bytes) -> None:
        """Body bytes, transfer coding removed, all that one read brought."""

    def on_end(self) -> None:
        """The answer is complete."""

    def on_error(self, error: ClientError) -> None:
        """There will be no (further) answer."""


class Call:
    """A request under way. After `abort`, or once the answer ended or failed, `over` is true and nothing more comes.

    `chunks`: where set, whole chunks of an answer in chunked transfer coding may go there in their framing, and not to
    the sink.
    """

    __slots__ = (
        "_client",
        "_paused",
        "_timer",
        "bodiless",
        "body",
        "chunks",
        "connecting",
        "connection",
        "head",
        "origin",
        "over",
        "resend",
        "sink",
    )

    def __init__(
        self, client: Client, origin: Origin, head: bytes, body: bytes, sink: Sink, *, bodiless: bool, resend: bool
    ) -> None:
        self._client = client
        self.origin = origin
        self.head = head
        self.body = body
        self.sink = sink
        self.bodiless = bodiless
        self.chunks: Passage | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.connection: Upstream | None = None
        self.over = False
        self.resend = resend
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None

    def pause(self) -> None:
        """Stop reading the answer, so that the server has to wait."""
        self._paused = True
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self.connection is not None:
            self.connection.resume()

    def abort(self) -> None:
        """Close the connection, which tells the server to drop the request. Nothing happens when it is over."""
        if self.over:
            return
        self._finish()
        if self.connecting is not None:
            self.connecting.cancel()
        if self.connection is not None:
            self.connection.close()

    def fail(self, error: ClientError) -> None:
        """Stop as `abort` does, and tell the sink why."""
        if self.over:
            return
        connecting, connection = self.connecting, self.connection
        self.failed(error)
        if connecting is not None:
            connecting.cancel()
        if connection is not None:
            connection.close()

    # for Client and Upstream

    def arm(self, timeout_s: float) -> None:
        """Fail unless the head comes within `timeout_s`."""
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._timed_out, timeout_s)

    def carried_by(self, connection: Upstream) -> None:
        """The call has a connection."""
        self.connection = connection
        if self._paused:
            connection.pause()

    def headed(self, status: int, headers: Headers) -> None:
        """The head came."""
        self._disarm()
        self.sink.on_head(status, headers)

    def ended(self) -> None:
        """The answer is complete."""
        self._finish()
        self.sink.on_end()

    def failed(self, error: ClientError) -> None:
        """The answer will not be complete."""
        if not self.over:
            self._finish()
            self.sink.on_error(error)

    def retry(self) -> None:
        """Send the request again on a new connection."""
        self.resend = False
        self.connection = None
        self._client.dispatch(self, fresh=True)

    def _timed_out(self, timeout_s: float) -> None:
        self._timer = None
        self.fail(ClientError("timeout", f"no answer within {timeout_s:g} s"))

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self) -> None:
        self.over = True
        self._disarm()
