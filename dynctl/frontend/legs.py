"""The two legs of a request, and the hand-over between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from dynctl.frontend.errors import engine_error
from dynctl.frontend.job import Job
from dynctl.frontend.relay import Relay
from dynctl.frontend.routing import Worker
from dynctl.http.call import Call, ClientError
from dynctl.http.client import Client, Gatherer
from dynctl.http.message import Headers


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


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds until a leg's answer must begin; None waits for as long as the client does."""

    prefill_s: float | None = 300.0
    decode_s: float | None = None


class LegFailed(Exception):
    """A leg brought no usable answer: `status` and `body` (in OpenAI's shape) when the engine did answer."""

    def __init__(self, leg: str, worker: Worker, message: str, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(f"the {leg} leg on {worker.id} failed: {message}")
        self.leg = leg
        self.worker = worker
        self.status = status
        self.body = body


class Legs:
    """Sends legs to workers. Cancelling a leg closes its connection, so that the engine drops the request."""

    def __init__(
        self,
        client: Client,
        clock: Callable[[], float],
        *,
        handover: Handover | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self.handover = handover or Handover()
        self._timeouts = timeouts or Timeouts()
        self._waiting: dict[str, set[Call]] = {}

    async def prefill(self, worker: Worker, job: Job, body: bytes) -> bytes:
        """Leg one: the worker's reply. Raises LegFailed for everything but a 2xx."""
        headers: Headers = [item for item in job.leg_headers() if item[0] != b"accept"]
        gatherer = Gatherer(asyncio.get_running_loop().create_future())
        job.spans.prefill_sent = self._clock()
        job.prefill = worker.id
        call = self._client.send(
            worker.origin,
            "POST",
            job.request.target,
            headers,
            body,
            gatherer,
            head_timeout_s=self._timeouts.prefill_s,
        )
        waiting = self._waiting.setdefault(worker.id, set())
        waiting.add(call)
        try:
            reply = await gatherer.done
        except ClientError as error:
            raise LegFailed("prefill", worker, error.message) from None
        finally:
            waiting.discard(call)
            call.abort()
        if not 200 <= reply.status < 300:
            body = engine_error(reply.status, reply.body, f"the prefill leg on {worker.id}")
            raise LegFailed("prefill", worker, f"it answered {reply.status}", reply.status, body)
        return reply.body

    def params(self, worker: Worker, job: Job, reply: bytes) -> bytes | None:
        """What leg two is to be told; None when nothing was kept. Raises LegFailed for a reply that is not JSON."""
        try:
            return self.handover.decode_params(job.id.decode(), reply)
        except (msgspec.DecodeError, RecursionError):
            raise LegFailed("prefill", worker, "its reply is not a JSON object") from None

    async def answer(self, worker: Worker, job: Job, body: bytes, *, leg: str = "decode", hold: bool = False) -> None:
        """The leg that answers the client. Raises LegFailed while nothing has been sent to the client.

        `hold`: for a failure of the engine itself too, with status 500, where else the client would be told of it.
        """
        request = job.request
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        relay = Relay(job, f"the {leg} leg on {worker.id}", self._clock, done, hold=hold)
        job.decode = worker.id
        job.spans.sent = self._clock()
        call = self._client.send(
            worker.origin,
            "GET" if request.method == "HEAD" else request.method,
            request.target,
            job.leg_headers(),
            body,
            relay,
            head_timeout_s=self._timeouts.decode_s,
        )
        relay.carried_by(call)
        waiting = self._waiting.setdefault(worker.id, set())
        waiting.add(call)
        try:
            await relay.done
        except ClientError as error:
            raise LegFailed(leg, worker, error.message) from None
        finally:
            waiting.discard(call)
            call.abort()
        if relay.held is not None:
            raise LegFailed(leg, worker, relay.held, 500)

    def gone(self, worker: Worker) -> None:
        """The worker is out of service: whatever has had no answer from it yet is not waited for any longer."""
        for call in tuple(self._waiting.pop(worker.id, ())):
            sink = call.sink
            if not (isinstance(sink, Relay) and sink.begun):
                call.fail(ClientError("closed", "the worker went out of service"))
        self._client.forget(worker.origin)
