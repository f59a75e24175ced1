"""From an engine's answer to the client: bytes as they were read, with as little looked at as can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from dynctl.frontend.errors import JSON, engine_error, error_body, error_event
from dynctl.frontend.job import Job
from dynctl.frontend.spans import Spans
from dynctl.frontend.sse import FirstContent
from dynctl.http.call import Call, ClientError
from dynctl.http.message import Headers, end_to_end, find
from dynctl.http.passage import Passage

_MAX_ERROR_BYTES = 1024 * 1024
_RETRIABLE = frozenset({500, 502, 503, 504})


class Held(NamedTuple):
    """An engine's failure that the client has not been told of; `body` in OpenAI's shape."""

    message: str
    status: int
    body: bytes


class Relay:
    """Sink of the leg that answers. `done` resolves when the client has its answer, well or ill.

    It fails with ClientError while nothing has been sent to the client: then another attempt, or an error with its own
    status, is still possible. The head is therefore held back until body bytes come. An error answer of the engine is
    gathered and given OpenAI's shape. A stream that breaks off ends with an error event, anything else with a cut
    connection: never with an end that looks like a good one. With `hold`, a failure of the engine itself (5xx, or an
    error event before all content) is kept from the client and noted in `held`: it may be tried again.
    """

    __slots__ = (
        *("_call", "_clock", "_error", "_first", "_headers", "_hold", "_job", "_last", "_status", "_who"),
        *("_events", "_moved", "_passage", "begun", "done", "held"),
    )

    def __init__(
        self, job: Job, who: str, clock: Callable[[], float], done: asyncio.Future[None], *, hold: bool = False
    ) -> None:
        self._job = job
        self._who = who
        self._clock = clock
        self.done = done
        self.begun = False
        self._moved = False
        self._passage: Passage | None = None
        self.held: Held | None = None
        self._hold = hold
        self._call: Call | None = None
        self._status = 0
        self._headers: Headers = []
        self._first: FirstContent | None = None
        self._error: list[bytes] | None = None
        self._last = b""
        self._events = 0

    def carried_by(self, call: Call) -> None:
        """The call whose answer this is: paused while the client reads slowly."""
        self._call = call

    @property
    def moved(self) -> bool:
        """Whether bytes came since this was last set to False."""
        return self._moved or (self._passage is not None and self._passage.moved)

    @moved.setter
    def moved(self, value: bool) -> None:
        self._moved = value
        if self._passage is not None:
            self._passage.moved = value

    @property
    def resumable(self) -> bool:
        """Whether another worker could carry the answer on although it has begun."""
        return False

    @property
    def held_up(self) -> bool:
        """Whether the client has not read what was sent to it so far."""
        return not self._job.responder.writable

    def on_head(self, status: int, headers: Headers) -> None:
        """Hold the head; find out what kind of answer it is."""
        self._status = status
        self._headers = headers
        if status >= 400:
            self._error = []
            return
        self._job.streamed = (find(headers, b"content-type") or b"").startswith(b"text/event-stream")
        if self._job.streamed:
            self._first = FirstContent()

    def on_body(self, data: bytes) -> None:
        """Pass bytes on."""
        if self._error is not None:
            self._gather(self._error, data)
            return
        first = self._first
        came = self._clock() if first is not None else 0.0
        if not self.begun:
            if first is not None and self._hold and b'"error"' in data and self._withheld(data):
                return
            self._begin()
        self._moved = True
        self._last = data
        self._job.responder.write(data)
        if first is not None:  # looked at once the client has it: that takes longer than the rest
            self._inspect(first, data, came)
        elif self._job.streamed:
            self._events += data.count(b"\n\n")  # JSON escapes line ends: they part events
        if self._passage is not None:
            self._passage.last = data
        elif type(self) is Relay and self._first is None and self._job.streamed and self._call is not None:
            # whoever extends this class looks at every event
            self._passage = self._call.chunks = self._job.responder.passage()
            if self._passage is not None:
                self._passage.last = data

    def on_end(self) -> None:
        """The engine's answer is complete."""
        if self._error is None:
            if not self.begun:
                self._begin()
            if self._job.streamed:
                self._count(self._job.spans)
            self._job.responder.end()
        elif self.held is None:
            self._failed(engine_error(self._status, b"".join(self._error), self._who))
        self._finish()

    def on_error(self, error: ClientError) -> None:
        """The engine's answer breaks off."""
        if not self.begun:
            self._call = None
            if not self.done.done():
                self.done.set_exception(error)
            return
        message = f"{self._who} broke off: {error.message}"
        self._job.error = message
        responder = self._job.responder
        if self._job.streamed:
            last = self._last if self._passage is None else self._passage.last
            if not last.endswith((b"\n\n", b"\r\n\r\n", b"\n\n\r\n")):
                responder.write(b"\n\n")
            responder.write(error_event(message, "worker_stalled" if error.kind == "timeout" else "worker_lost"))
            responder.end()
        else:
            responder.abort()
        self._finish()

    def _count(self, spans: Spans) -> None:
        spans.ended = self._clock()
        spans.events = self._events + (self._passage.count if self._passage is not None else 0)

    def _failed(self, body: bytes) -> None:
        """The engine answered with an error."""
        if self._hold and self._status in _RETRIABLE:
            self._keep(Held(f"it answered {self._status}", self._status, body))
            return
        self._job.error = f"{self._who} answered {self._status}"
        extra = [item for item in self._headers if item[0] in (b"retry-after", b"allow")]
        self._job.responder.simple(self._status, [JSON, *extra, (b"x-request-id", self._job.id)], body)

    def _keep(self, held: Held) -> None:
        self.held = held
        self._error = []
        self._job.error = None

    def _begin(self) -> None:
        self.begun = True
        job = self._job
        headers = [item for item in end_to_end(self._headers) if item[0] != b"x-request-id"]
        headers.append((b"x-request-id", job.id))
        job.responder.start(self._status, headers)
        if self._call is not None:
            job.responder.on_pressure(self._call.pause, self._call.resume)

    def _withheld(self, data: bytes) -> bool:
        """Whether the stream begins with an error of the engine's."""
        first = FirstContent()
        if first.feed(data) or first.error is None:
            return False
        self._keep(Held(first.error, 500, error_body(500, f"{self._who}: {first.error}")))
        self._finish()
        return True

    def _inspect(self, first: FirstContent, data: bytes, came: float) -> None:
        if first.feed(data):
            self._job.spans.first_content = came
            self._first = None
        elif first.error is not None:
            self._job.error = f"{self._who}: {first.error}"

    def _gather(self, pieces: list[bytes], data: bytes) -> None:
        if sum(map(len, pieces)) + len(data) <= _MAX_ERROR_BYTES:
            pieces.append(data)

    def _finish(self) -> None:
        self._call = None  # it refers to this
        if not self.done.done():
            self.done.set_result(None)
