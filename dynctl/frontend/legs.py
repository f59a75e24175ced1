"""The two legs of a request, and the hand-over between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from dynctl.frontend.errors import engine_error
from dynctl.frontend.job import Job
from dynctl.frontend.relay import Relay
from dynctl.frontend.resumable import ResumableRelay
from dynctl.frontend.retry import Reason
from dynctl.frontend.routing import Worker
from dynctl.frontend.watch import Kv, Timeouts, Watch
from dynctl.http.call import ClientError
from dynctl.http.client import Client, Gatherer
from dynctl.http.message import Headers

_LIST_S = 5.0


class _PrefillReply(msgspec.Struct):
    kv_transfer_params: msgspec.Raw = msgspec.Raw(b"null")


_REPLY = msgspec.json.Decoder(_PrefillReply)


class Handover:
    """The seam between the legs: what the decode leg is told about the KV cache that the prefill leg left.

    This is the only place where one leg's reply becomes the other leg's parameters. A test that overrides it can swap
    the parameters of two requests and must see verification fail.
    """

    def decode_params(self, request_id: str, prefill_reply: bytes) -> bytes | None:
        """`kv_transfer_params` of the reply, byte for byte: leaving fields out would disable lease heartbeats.

        None when there are none: the prompt's first token ended the request, and nothing was kept.
        Raises msgspec.DecodeError when the reply is not a JSON object.
        """
        params = bytes(_REPLY.decode(prefill_reply).kv_transfer_params)
        return None if params == b"null" else params


class LegFailed(Exception):
    """A leg brought no usable answer: `status` and `body` (in OpenAI's shape) when the engine did answer.

    `begun`: a part of its answer has gone to the client, and another worker may go on from there.
    """

    def __init__(
        self,
        leg: str,
        worker: Worker,
        message: str,
        reason: Reason,
        status: int | None = None,
        body: bytes = b"",
        *,
        begun: bool = False,
    ) -> None:
        super().__init__(f"the {leg} leg on {worker.id} failed: {message}")
        self.leg = leg
        self.worker = worker
        self.reason: Reason = reason
        self.status = status
        self.body = body
        self.begun = begun


OnLeg = Callable[[str, str, str, float], None]
"""Hears of a leg that is over: its role, worker, outcome (see `Metrics.leg`) and seconds."""


def _nobody(leg: str, worker: str, outcome: str, seconds: float) -> None:
    pass


class Legs:
    """Sends legs to workers; `on_leg` hears how each ended.

    Cancelling a leg closes its connection, so that the engine drops the request. `engine_headers`: what engines are
    told besides, the key of a run of several nodes.
    """

    def __init__(
        self,
        client: Client,
        clock: Callable[[], float],
        *,
        handover: Handover | None = None,
        timeouts: Timeouts | None = None,
        engine_headers: Headers | None = None,
        on_leg: OnLeg = _nobody,
    ) -> None:
        self._on_leg = on_leg
        self._client = client
        self._engine_headers = engine_headers or []
        self._clock = clock
        self.handover = handover or Handover()
        self._timeouts = timeouts or Timeouts()
        self._watch = Watch(clock, self._timeouts)

    async def prefill(self, worker: Worker, job: Job, body: bytes) -> bytes:
        """Leg one: the worker's reply. Raises LegFailed for everything but a 2xx."""
        headers: Headers = job.leg_headers(answers=False) + self._engine_headers
        gatherer = Gatherer(asyncio.get_running_loop())
        job.spans.prefill_sent = self._clock()
        job.prefill = worker.id
        call = self._client.send(worker.origin, "POST", job.target, headers, body, gatherer)
        watched = self._watch.add(worker.id, call, self._timeouts.prefill_s, directed=job.directed)
        outcome = "left"
        try:
            reply = await gatherer.done
            outcome = "ok" if reply.status < 300 else "refused" if reply.status < 500 else "engine_error"
        except ClientError as error:
            outcome = error.kind
            raise LegFailed("prefill", worker, error.message, error.kind) from None
        finally:
            self._on_leg("prefill", worker.id, outcome, self._clock() - job.spans.prefill_sent)
            self._watch.drop(watched)
            call.abort()
        if not 200 <= reply.status < 300:
            body = engine_error(reply.status, reply.body, f"the prefill leg on {worker.id}")
            raise LegFailed("prefill", worker, f"it answered {reply.status}", "engine_error", reply.status, body)
        return reply.body

    async def models(self, worker: Worker, job: Job) -> bytes:
        """The worker's list of models; nothing where it gives none."""
        gatherer = Gatherer(asyncio.get_running_loop())
        call = self._client.send(worker.origin, "GET", b"/v1/models", self._engine_headers, b"", gatherer)
        watched = self._watch.add(worker.id, call, _LIST_S)
        try:
            return (await gatherer.done).body
        except ClientError:
            return b""
        finally:
            self._watch.drop(watched)
            call.abort()

    def carried_on(self, job: Job) -> None:
        """Another worker goes on with the job's stream."""
        job.carried_on(self._clock())

    def params(self, worker: Worker, job: Job, reply: bytes) -> bytes | None:
        """What leg two is to be told; None when nothing was kept. Raises LegFailed for a reply that is not JSON."""
        try:
            return self.handover.decode_params(job.id.decode(), reply)
        except (msgspec.DecodeError, RecursionError):
            raise LegFailed("prefill", worker, "its reply is not a JSON object", "protocol") from None

    async def answer(
        self,
        worker: Worker,
        job: Job,
        body: bytes,
        *,
        leg: str = "decode",
        hold: bool = False,
        resend: bool = False,
    ) -> None:
        """The leg that answers the client. Raises LegFailed while nothing has been sent to the client, or where another
        worker can go on from what was sent.

        `hold`: for a failure of the engine itself too, where else the client would be told of it. `resend`: the body
        carries no KV parameters, so it may be written again where a pooled connection turns out to be closed.
        """
        request = job.request
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        who = f"the {leg} leg on {worker.id}"
        if job.transcript is None:
            relay = Relay(job, who, self._clock, done, hold=hold)
        else:
            relay = ResumableRelay(job, who, self._clock, done, job.transcript, hold=hold)
        job.decode = worker.id
        if job.told is not None:
            job.resumed.append(worker.id)
        job.spans.sent = self._clock()
        call = self._client.send(
            worker.origin,
            "GET" if request.method == "HEAD" else request.method,
            job.target,
            job.leg_headers() + self._engine_headers,
            body,
            relay,
            resend=resend,
        )
        relay.carried_by(call)
        streamed = job.fields is not None and job.fields.get("stream") == b"true"
        limit_s = self._timeouts.first_s if streamed else self._timeouts.whole_s
        kv = Kv(job.prefill, streamed) if job.prefill else None
        watched = self._watch.add(worker.id, call, limit_s, relay, directed=job.directed, kv=kv)
        outcome = "left"
        try:
            await relay.done
            outcome = _ending(relay, job)
        except ClientError as error:
            outcome = error.kind
            if watched.kv_lost and error.kind == "timeout":
                why = f"its KV cache was to come from {job.prefill}, whose node is lost"
                raise LegFailed(leg, worker, why, "kv_lost") from None
            raise LegFailed(leg, worker, error.message, error.kind, begun=relay.begun) from None
        finally:
            self._on_leg(leg, worker.id, outcome, self._clock() - job.spans.sent)
            self._watch.drop(watched)
            call.abort()
        if relay.held is not None:
            message, status, told = relay.held
            raise LegFailed(leg, worker, message, "engine_error", status, told, begun=relay.begun)

    def withdraw(self, worker: Worker) -> None:
        """The worker does not answer: what can go on elsewhere is not waited for any longer."""
        self._watch.withdraw(worker.id, "the worker stopped answering", directed=False)
        self._watch.hasten(worker.id, resumable=True)

    def lose_kv(self, worker: Worker) -> None:
        """Nothing is heard of its node: what was to get its KV cache from it waits for that no longer."""
        self._watch.lose_source(worker.id)

    def gone(self, worker: Worker) -> None:
        """The worker is out of service: nor are answers that it has begun, once they stand still."""
        self._watch.withdraw(worker.id, "the worker went out of service", directed=True)
        self._watch.hasten(worker.id)
        self._client.forget(worker.origin)


def _ending(relay: Relay, job: Job) -> str:
    """How the leg that answers ended, as it is counted."""
    if relay.held is not None:
        return "engine_error"
    if job.responder.status >= 400:
        return "refused" if job.responder.status < 500 else "engine_error"
    return "ok" if job.error is None else "closed"
