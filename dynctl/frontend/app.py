"""The router: what each path does, who may use it, and the record of each request."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec

from dynctl.frontend.access_log import AccessLog
from dynctl.frontend.admission import Admission
from dynctl.frontend.alone import Way
from dynctl.frontend.busy import Busy
from dynctl.frontend.directed import directed_pair
from dynctl.frontend.dispatch import Dispatcher
from dynctl.frontend.errors import JSON, Failure
from dynctl.frontend.job import CLIENT_LEFT, Job
from dynctl.frontend.keys import check_key
from dynctl.frontend.legs import Handover, Legs
from dynctl.frontend.listen import is_loopback
from dynctl.frontend.messages import Mode, RequestRecord, WorkerTable
from dynctl.frontend.metrics import CONTENT_TYPE, Metrics
from dynctl.frontend.places import Places
from dynctl.frontend.retry import Bucket, Budget, RetryLimits
from dynctl.frontend.shaping import Shaping
from dynctl.frontend.tokens import Tokenizer
from dynctl.frontend.tracing import TracedLegs, Tracing
from dynctl.frontend.watch import Timeouts
from dynctl.frontend.workers import Workers
from dynctl.http.client import Client
from dynctl.http.message import Headers, Request
from dynctl.http.responder import Responder

GENERATION = frozenset({"/v1/completions", "/v1/chat/completions"})
BARE_PATHS = frozenset({"/tokenize", "/detokenize", "/score", "/rerank", "/pooling", "/classify", "/version"})
"""What vLLM serves besides /v1 and what clients need."""
_OWN_PATHS = frozenset({"/health", "/live", "/metrics", "/dynctl/requests"})
"""`/health` says whether requests can be served, `/live` only that this process runs."""
_TOLD_BY_ALL = frozenset({"/metrics", "/dynctl/requests"})
_MAX_RECENT = 500
"""Requests that `/dynctl/requests` tells of."""
_LABELS = GENERATION | BARE_PATHS | {"/v1/models", "/v1/embeddings", "/v1/responses", "/v1/messages"}
_ALLOW = (b"allow", b"GET, HEAD, POST, OPTIONS")


class Whole(Protocol):
    """All processes of the frontend that this one is part of. None: that can't be had now."""

    async def metrics(self) -> bytes | None:
        """Of all, in Prometheus text."""

    async def requests(self) -> list[RequestRecord] | None:
        """The last ones of all, the latest first."""

    def took(self, way: Way, tokens: int, ttft_ms: float) -> None:
        """What `decode_alone: learn` learns from: the others learn from it, too."""


class App:
    """Handles requests. `clock` must be the server's; `on_record` gets every finished request.

    `whole`, `bucket`, `places`: where this process is one of several; the bucket is the retry budget that they share,
    and the places are those of admission.
    """

    def __init__(
        self,
        workers: Workers,
        client: Client,
        *,
        keys: tuple[bytes, ...] = (),
        token: bytes | None = None,
        handover: Handover | None = None,
        timeouts: Timeouts | None = None,
        retries: RetryLimits | None = None,
        engine_headers: Headers | None = None,
        resume: bool = False,
        shaping: Shaping | None = None,
        access: AccessLog | None = None,
        tracing: Tracing | None = None,
        clock: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
        on_record: Callable[[RequestRecord], None] = lambda _: None,
        whole: Whole | None = None,
        bucket: Bucket | None = None,
        places: Places | None = None,
    ) -> None:
        self.workers = workers
        self.busy = Busy()
        self.metrics = Metrics(workers, self.busy)
        self._recent: deque[RequestRecord] = deque(maxlen=_MAX_RECENT)
        made = Legs if tracing is None else functools.partial(TracedLegs, tracing)
        self.legs = made(
            client,
            clock,
            handover=handover,
            timeouts=timeouts,
            engine_headers=engine_headers,
            on_leg=self.metrics.leg,
        )
        self._tracing = tracing
        self._access = access
        shaping = shaping or Shaping()
        self.alone = alone = shaping.decide()
        if alone is not None and whole is not None:
            alone.tell = whole.took
        self.admission = Admission(shaping.admission, clock, places) if shaping.admission else None
        for one in (alone, self.admission):
            if one is not None:
                self.metrics.also(one)
        tokenizer = Tokenizer(client, engine_headers or []) if workers.chooser.index is not None else None
        self._dispatcher = Dispatcher(
            *(workers, self.legs, self.metrics, Budget(retries, bucket)),
            resume=resume,
            alone=alone,
            tokenizer=tokenizer,
        )
        self._keys = keys
        self._token = token
        self._clock = clock
        self._wall = wall
        self._on_record = on_record
        self._whole = whole

    def take_keys(self, keys: tuple[bytes, ...]) -> None:
        """Requests from now on need one of these."""
        self._keys = keys

    def take(self, table: WorkerTable) -> None:
        """Follow a new table at once: requests that wait for a worker which can't answer go elsewhere."""
        for worker in self.workers.update(table):
            self.legs.gone(worker)
        self.metrics.health_moved()
        for worker in self.workers.all():
            # without another to turn to, waiting is better than failing: the worker may come back
            if worker.state == "unhealthy" and self.workers.ready(
                "decode" if worker.role == "prefill" else worker.role
            ):
                self.legs.withdraw(worker)
        for entry in table.workers:
            lost = self.workers.get(entry.id) if entry.lost else None
            if lost:
                self.legs.lose_kv(lost)

    async def handle(self, request: Request, responder: Responder) -> None:
        """One request of the HTTP server."""
        if request.method == "OPTIONS":
            responder.start(204, [_ALLOW])
            responder.end()
        elif request.path in _OWN_PATHS:
            if self._whole is not None and request.path in _TOLD_BY_ALL and request.method in ("GET", "HEAD"):
                await self._own_of(self._whole, request, responder)
            else:
                self._own(request, responder)
        else:
            await self._proxied(request, responder)

    def _own(self, request: Request, responder: Responder) -> None:
        if request.method not in ("GET", "HEAD"):
            failure = Failure(405, f"{request.path} is read with GET")
            responder.simple(405, [JSON, (b"allow", b"GET, HEAD")], failure.body)
        elif request.path == "/metrics":
            responder.simple(200, [(b"content-type", CONTENT_TYPE)], self.metrics.text())
        elif request.path == "/live":
            responder.simple(200, [JSON], b'{"status":"alive"}')
        elif request.path == "/dynctl/requests":
            if self._may_know(request, responder):
                _tell_requests(responder, self.recent())
        else:
            health = self.workers.health()
            document = {**msgspec.to_builtins(health), "workers": self.workers.counts()}
            responder.simple(503 if health.status == "down" else 200, [JSON], msgspec.json.encode(document))

    async def _own_of(self, whole: Whole, request: Request, responder: Responder) -> None:
        """What all processes have to tell."""
        text = records = None
        if request.path == "/metrics":
            text = await whole.metrics()
        elif self._may_know(request, responder):
            records = await whole.requests()
        else:
            return
        if text is not None:
            responder.simple(200, [(b"content-type", CONTENT_TYPE)], text)
        elif records is not None:
            _tell_requests(responder, records)
        else:
            failure = Failure(503, "the frontend's first process does not answer", code="no_answer")
            responder.simple(failure.status, [JSON], failure.body)

    def recent(self) -> list[RequestRecord]:
        """The last requests of this process with their splits, the latest first."""
        return list(reversed(self._recent))

    def learn(self, way: Way, tokens: int, ttft_ms: float) -> None:
        """Another process has measured that."""
        if self.alone is not None:
            self.alone.lines[way].add(tokens, ttft_ms)

    def _may_know(self, request: Request, responder: Responder) -> bool:
        """Of requests those are told who have a key, or else those on this machine; others get their answer here."""
        try:
            check_key(request, self._keys)
            if not self._keys and not is_loopback(responder.peer):
                raise Failure(403, "without API keys this is told on this machine alone", code="not_local")
        except Failure as failure:
            responder.simple(failure.status, [JSON, *failure.headers], failure.body)
            return False
        return True

    async def _proxied(self, request: Request, responder: Responder) -> None:
        job = Job(request, responder, self._wall(), self._planned_mode())
        self.metrics.in_flight += 1
        self.busy.add(job)
        if self._tracing is not None:
            self._tracing.begin(job)
        try:
            await self._serve(job)
        except Failure as failure:
            job.status = failure.status
            job.error = failure.message
            if not responder.started:
                headers = [JSON, *failure.headers, (b"x-request-id", job.id)]
                responder.simple(failure.status, headers, failure.body)
        except asyncio.CancelledError:
            job.status = CLIENT_LEFT
            job.error = job.error or "the client left"
            raise
        except Exception as error:
            job.status = responder.status or 500
            job.error = f"internal error: {error!r}"
            raise
        finally:
            self.metrics.in_flight -= 1
            self.busy.remove(job)
            record = job.record(self._clock())
            self.metrics.finished(record, request.path if request.path in _LABELS else "other")
            self._recent.append(record)
            self._on_record(record)
            if self._access is not None:
                self._access.write(record, request, responder.peer)
            if self._tracing is not None:
                self._tracing.end(job, record)

    async def _serve(self, job: Job) -> None:
        request = job.request
        pair = directed_pair(request, self._token)
        if pair is None:
            check_key(request, self._keys)
        if not request.path.startswith("/v1/") and request.path not in BARE_PATHS:
            raise Failure(404, f"there is nothing at {request.path[:200]}", code="not_found")
        generation = request.path in GENERATION and request.method == "POST"
        if generation and request.header(b"content-encoding") not in (None, b"identity"):
            raise Failure(415, "compressed request bodies are not read here", code="content_encoding")
        if pair is not None:
            await self._dispatcher.directed(job, pair, generation=generation)
        elif generation and self.admission is not None:
            await self.admission.enter(request.header(b"authorization") or b"")
            try:
                await self._dispatcher.generate(job)
            finally:
                self.admission.leave()
        elif generation:
            await self._dispatcher.generate(job)
        else:
            await self._dispatcher.pass_on(job)

    def _planned_mode(self) -> Mode:
        workers = self.workers
        if workers.alone_role() == "worker":
            return "aggregated"
        return "disaggregated" if workers.expects("prefill") else "decode-only"


def _tell_requests(responder: Responder, records: list[RequestRecord]) -> None:
    responder.simple(200, [JSON], msgspec.json.encode({"schema": 1, "requests": records}))
