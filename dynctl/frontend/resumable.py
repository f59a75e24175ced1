"""Relays a stream that another worker can carry on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dynctl.frontend.errors import error_body
from dynctl.frontend.job import Job
from dynctl.frontend.relay import Held, Relay
from dynctl.frontend.transcript import Transcript
from dynctl.http.call import ClientError
from dynctl.http.message import Headers

_MAX_EVENT_BYTES = 8 * 1024 * 1024


class ResumableRelay(Relay):
    """Writes a transcript of what the client gets. Where the stream breaks off and can be carried on, `done` fails
    although the client has a part of it; so does every failure of a leg that carries on."""

    __slots__ = ("_carries", "_plain", "_rest", "_transcript")

    def __init__(
        self,
        job: Job,
        who: str,
        clock: Callable[[], float],
        done: asyncio.Future[None],
        transcript: Transcript,
        *,
        hold: bool = False,
    ) -> None:
        self._carries = job.responder.started
        super().__init__(job, who, clock, done, hold=hold or self._carries)
        self._transcript = transcript
        self._rest = b""
        self._plain = False

    @property
    def resumable(self) -> bool:
        """Whether another worker could go on now."""
        return self._transcript.can_go_on

    def on_head(self, status: int, headers: Headers) -> None:
        """As `Relay` does; a leg that carries on must be a stream, too."""
        super().on_head(status, headers)
        if self._carries:
            if self._error is None and self._first is None:
                self.on_error(ClientError("protocol", "what should carry on a stream is none"))
            self._first = None

    def on_body(self, data: bytes) -> None:
        """Pass on what the transcript makes of the events that are complete."""
        if self.done.done():
            return
        if self._plain or self._error is not None or not self._job.streamed:
            super().on_body(data)
            return
        self.moved = True
        *events, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n\n")
        made = []
        for number, event in enumerate(events):
            made.append(self._transcript.take(event))
            if self._transcript.broken is not None:
                if not (self._carries or self._transcript.can_go_on):
                    self._plain = True  # no one can help: the client gets the engine's own words
                    made[-1] = b"\n\n".join((*events[number:], self._rest))
                break
        text = b"".join(made)
        if text:
            super().on_body(text)
        if self._transcript.broken is not None and not self._plain:
            self._keep(Held(self._transcript.broken, 500, error_body(500, f"{self._who}: {self._transcript.broken}")))
            self._finish()
        elif len(self._rest) > _MAX_EVENT_BYTES:
            self.on_error(ClientError("protocol", "an event is too long"))

    def on_end(self) -> None:
        """A stream that ends without an end has broken off."""
        if self.done.done():
            return
        if self._error is None and self._job.streamed and not (self._plain or self._transcript.finished):
            self.on_error(ClientError("closed", "the stream ended before its last token"))
            return
        super().on_end()

    def on_error(self, error: ClientError) -> None:
        """Leave it to another worker, where that is possible."""
        if self.done.done():
            return
        transcript = self._transcript
        if self._plain:
            super().on_error(error)
        elif transcript.finished:
            self._job.responder.write(transcript.closing())
            self._job.responder.end()
            self._finish()
        elif self._carries or (self.begun and self._job.streamed and transcript.can_go_on):
            self.done.set_exception(error)
        else:
            super().on_error(error)

    def _failed(self, body: bytes) -> None:
        if self._carries:
            self._keep(Held(f"it answered {self._status}", self._status, body))
        else:
            super()._failed(body)

    def _begin(self) -> None:
        if not self._carries:
            super()._begin()
            return
        self.begun = True
        if self._call is not None:
            self._job.responder.on_pressure(self._call.pause, self._call.resume)
