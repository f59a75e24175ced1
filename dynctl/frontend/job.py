"""One client request on its way through the router."""

from __future__ import annotations

import os
import re

import msgspec

from dynctl.frontend.ask import NOTHING, Ask
from dynctl.frontend.body import Fields
from dynctl.frontend.messages import Mode, RequestRecord
from dynctl.frontend.spans import Spans
from dynctl.frontend.transcript import Transcript
from dynctl.http.message import Headers, Request
from dynctl.http.responder import Responder

_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,200}\Z")
_PASSED_ON = frozenset({b"content-type", b"traceparent", b"tracestate", b"user-agent"})
_ANSWERED = _PASSED_ON | {b"accept"}
CLIENT_LEFT = 499


def request_id(request: Request) -> bytes:
    """The client's X-Request-Id where it is fit to be a request id, else a new one."""
    given = request.header(b"x-request-id")
    if given is not None and _ID.match(given):
        return given
    return os.urandom(16).hex().encode()


class Job:
    """A request, its answer, and what is known about how it went.

    `target`, `body`, `fields`: what engines are asked, which is the client's request until its stream is carried on.
    `asked`: the client's members. `told`: how it went until its first worker failed; `resumed`: those that carried on.
    """

    __slots__ = (
        "ask",
        "asked",
        "at",
        "body",
        "decode",
        "directed",
        "error",
        "fields",
        "id",
        "mode",
        "prefill",
        "request",
        "responder",
        "resumed",
        "spans",
        "status",
        "streamed",
        "target",
        "told",
        "transcript",
    )

    def __init__(self, request: Request, responder: Responder, at: float, mode: Mode) -> None:
        self.request = request
        self.responder = responder
        self.at = at
        self.mode: Mode = mode
        self.id = request_id(request)
        self.target = request.target
        self.body = request.body
        self.transcript: Transcript | None = None
        self.asked: Fields | None = None
        self.resumed: list[str] = []
        self.told: RequestRecord | None = None
        self.spans = Spans(request.received)
        self.fields: Fields | None = None
        self.ask: Ask = NOTHING
        self.status = 0
        self.streamed = False
        self.directed = False
        self.prefill: str | None = None
        self.decode: str | None = None
        self.error: str | None = None

    def leg_headers(self, *, answers: bool = True) -> Headers:
        """What an engine is told: never the client's credentials; what the client accepts, if it `answers` it."""
        told = _ANSWERED if answers else _PASSED_ON
        headers = [item for item in self.request.headers if item[0] in told]
        headers.append((b"x-request-id", self.id))
        return headers

    def carried_on(self, now: float) -> None:
        """Another worker goes on with the stream: its split stays that of the first one's."""
        self.told = self.told or self.record(now)
        self.spans = Spans(self.spans.received)
        self.error = None

    def record(self, now: float) -> RequestRecord:
        """The request as it ended at `now`."""
        if self.told is not None:
            return msgspec.structs.replace(
                self.told,
                status=self.status or self.responder.status,
                total_ms=(now - self.spans.received) * 1000,
                error=self.error,
                resumed=list(self.resumed),
            )
        split = self.spans.split()
        return RequestRecord(
            id=self.id.decode(),
            at=self.at,
            path=self.request.path[:200],
            mode=self.mode,
            status=self.status or self.responder.status,
            streamed=self.streamed,
            prefill=self.prefill,
            decode=self.decode,
            queue_ms=split.queue_ms,
            prefill_ms=split.prefill_ms,
            handover_ms=split.handover_ms,
            ttft_ms=split.ttft_ms,
            itl_ms=self.spans.itl_ms(),
            total_ms=(now - self.spans.received) * 1000,
            error=self.error,
            directed=self.directed,
        )
