"""Choosing workers for a request, and what happens when one of them fails."""

from __future__ import annotations

from collections.abc import Callable

from dynctl.frontend.body import decode_body, one_sequence, parse_fields, prefill_body
from dynctl.frontend.directed import Pair
from dynctl.frontend.errors import Failure
from dynctl.frontend.job import Job
from dynctl.frontend.legs import LegFailed, Legs
from dynctl.frontend.routing import Worker
from dynctl.frontend.workers import Workers

_RETRY_AFTER = (b"retry-after", b"2")


class Dispatcher:
    """Serves one job. Raises Failure with the error that the client gets.

    `on_degraded(reason)` is called when a request that was to be handed over is served by decode alone.
    """

    def __init__(self, workers: Workers, legs: Legs, on_degraded: Callable[[str], None]) -> None:
        self._workers = workers
        self._legs = legs
        self._on_degraded = on_degraded

    async def generate(self, job: Job) -> None:
        """A completion: through prefill and decode where it can be handed over, else by one worker."""
        job.fields = parse_fields(job.request.body)
        role = self._workers.alone_role()
        hand_over = role == "decode" and self._workers.expects("prefill") and one_sequence(job.fields)
        await self._attempts(job, role, hand_over=hand_over)

    async def pass_on(self, job: Job) -> None:
        """Any other request: to one worker as it is."""
        await self._attempts(job, self._workers.alone_role(), hand_over=False)

    async def directed(self, job: Job, pair: Pair, *, generation: bool) -> None:
        """Exactly the workers that were named, proving ones too; no other attempt, no fall-back."""
        job.directed = True
        worker = self._named(pair.worker)
        job.mode = "aggregated" if worker.role == "worker" else "decode-only"
        body = job.request.body
        if pair.prefill is not None:
            job.mode = "disaggregated"
            prefill = self._named(pair.prefill)
            job.fields = parse_fields(body) if generation else {}
            if not generation or not one_sequence(job.fields):
                raise Failure(400, "this request can't be handed over from prefill to decode", code="not_one_sequence")
            try:
                reply = await self._legs.prefill(prefill, job, prefill_body(job.fields))
                params = self._legs.params(prefill, job, reply)
            except LegFailed as error:
                raise _failure(error) from None
            if params is None:
                raise Failure(502, f"the prefill leg on {prefill.id} kept no KV cache for decode", code="no_handover")
            body = decode_body(body, params)
        try:
            await self._legs.answer(worker, job, body, leg=worker.role)
        except LegFailed as error:
            raise _failure(error) from None

    async def _attempts(self, job: Job, role: str, *, hand_over: bool) -> None:
        """One attempt, and one more on another worker when the first one's worker did not answer at all.

        A decode that fails over a handed-over request does so, as a rule, because the prefill worker died with the KV
        cache before it was fetched: then once more without that prefill worker.
        """
        tried: list[str] = []
        lost: list[str] = []
        while True:
            if not self._workers.ready(role):
                raise Failure(503, self._reason(), code="no_worker", headers=[_RETRY_AFTER])
            params = await self._prefill(job, lost) if hand_over else None
            if params is None:
                job.mode = "decode-only" if role == "decode" else "aggregated"
                job.prefill = job.spans.prefill_sent = None
            else:
                job.mode = "disaggregated"
            worker = self._workers.pick(role, tried)
            if worker is None:
                raise Failure(503, self._reason(), code="no_worker", headers=[_RETRY_AFTER])
            body = job.request.body if params is None else decode_body(job.request.body, params)
            try:
                await self._legs.answer(worker, job, body, leg=role, hold=params is not None and not lost)
            except LegFailed as error:
                if error.status is not None and job.prefill is not None:
                    lost.append(job.prefill)
                    continue
                self._workers.suspect(worker)
                tried.append(worker.id)
                another = any(w.id not in tried for w in self._workers.ready(role))
                if len(tried) > 1 or not another:
                    raise _failure(error) from None
            else:
                self._workers.trust(worker)
                return

    async def _prefill(self, job: Job, lost: list[str]) -> bytes | None:
        """Parameters from a prefill worker, the second one asked when the first fails; None: decode serves alone.

        `lost`: those whose KV cache decode could not use; they count as tried.
        """
        if job.fields is None:
            return None
        body = prefill_body(job.fields)
        tried = list(lost)
        while len(tried) < 2:
            worker = self._workers.pick("prefill", tried)
            if worker is None:
                break
            try:
                reply = await self._legs.prefill(worker, job, body)
                params = self._legs.params(worker, job, reply)
            except LegFailed as error:
                if error.status is not None and 400 <= error.status < 500:
                    raise _failure(error) from None
                self._workers.suspect(worker)
                tried.append(worker.id)
                continue
            self._workers.trust(worker)
            if params is None:
                self._on_degraded("nothing_kept")
            return params
        self._on_degraded("handover_failed" if lost else "prefill_failed" if tried else "no_prefill")
        return None

    def _named(self, worker_id: str) -> Worker:
        worker = self._workers.get(worker_id)
        if worker is None:
            raise Failure(400, f"there is no worker {worker_id!r}", code="no_such_worker")
        if worker.state not in ("proving", "ready"):
            raise Failure(503, f"worker {worker_id} is {worker.state}", code="no_worker", headers=[_RETRY_AFTER])
        return worker

    def _reason(self) -> str:
        return self._workers.health().reason or "no worker is ready"


def _failure(error: LegFailed) -> Failure:
    """A leg's failure as the client's answer: the engine's own status where it gave one, else 502."""
    if error.status is not None:
        status = error.status if error.status >= 400 else 502
        return Failure(status, str(error), body=error.body)
    return Failure(502, str(error), code="worker_unreachable")
