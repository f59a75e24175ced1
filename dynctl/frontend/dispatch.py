"""Choosing workers for a request, and what happens when one of them fails."""

from __future__ import annotations

from typing import Protocol

import msgspec

from dynctl.frontend.alone import Alone
from dynctl.frontend.ask import tokens_of
from dynctl.frontend.body import Fields, decode_body, one_sequence, parse_fields, prefill_body
from dynctl.frontend.carry import carry_on, follow
from dynctl.frontend.directed import Pair
from dynctl.frontend.errors import Failure, error_event
from dynctl.frontend.job import Job
from dynctl.frontend.kv_index import KvIndex
from dynctl.frontend.legs import LegFailed, Legs
from dynctl.frontend.retry import MAX_PREFILLS, Budget, Reason, Trail, after_answer, after_prefill
from dynctl.frontend.routing import Worker
from dynctl.frontend.tokens import Tokenizer
from dynctl.frontend.workers import Workers

_RETRY_AFTER = (b"retry-after", b"2")


class Counts(Protocol):
    """What is counted of requests that did not go as planned."""

    def degraded(self, reason: str) -> None:
        """Decode serves a request alone that was to be handed over."""

    def retried(self, leg: str, reason: Reason) -> None:
        """A leg is sent anew after one failed for that reason."""

    def budget_exhausted(self) -> None:
        """A request was refused instead of being tried again."""

    def resumed(self) -> None:
        """A stream is carried on by another worker."""


class Dispatcher:
    """Serves one job. Raises Failure with the error that the client gets.

    `counts` hears of what did not go as planned; retries are made as far as `budget` goes. `resume`: streams that break
    off are carried on by another worker. `alone`: decides which prompts decode serves alone.
    """

    def __init__(
        self,
        workers: Workers,
        legs: Legs,
        counts: Counts,
        budget: Budget,
        *,
        resume: bool = False,
        alone: Alone | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self._workers = workers
        self._legs = legs
        self._counts = counts
        self._budget = budget
        self._resume = resume
        self._alone = alone
        self._tokenizer = tokenizer

    async def generate(self, job: Job) -> None:
        """A completion: through prefill and decode where it can be handed over, else by one worker."""
        job.fields = parse_fields(job.request.body)
        job.ask = self._workers.chooser.ask(job.request, job.fields)
        if self._tokenizer is not None and self._workers.chooser.index is not None:
            await self._look_up(job, job.fields, self._tokenizer, self._workers.chooser.index)
        role = self._workers.alone_role()
        hand_over = role == "decode" and self._workers.expects("prefill") and one_sequence(job.fields)
        if hand_over and self._alone is not None:
            await self._shortest_way(job, job.fields, self._alone)
        else:
            await self._generate(job, role, hand_over=hand_over)

    async def _look_up(self, job: Job, fields: Fields, tokenizer: Tokenizer, index: KvIndex) -> None:
        """How much of the prompt lies in which cache."""
        workers = self._workers.ready("prefill") or self._workers.ready(self._workers.alone_role())
        ids = await tokenizer.ids(workers[index.turn(len(workers))], fields) if workers else None
        if ids is not None:
            job.ask = msgspec.structs.replace(job.ask, tokens=len(ids), matched=index.matched(ids))

    async def _shortest_way(self, job: Job, fields: Fields, alone: Alone) -> None:
        """By two legs or by decode alone, whichever the tokens to compute make faster; what it took is noted."""
        tokens = max(
            1,
            (job.ask.tokens or tokens_of(fields)) - self._workers.chooser.seen(self._workers.ready("decode"), job.ask),
        )
        way = alone.way(tokens)
        await self._generate(job, "decode", hand_over=way == "two legs")
        ttft_ms = job.spans.split().ttft_ms
        if ttft_ms is not None and (job.mode == "disaggregated") == (way == "two legs"):
            alone.observe(way, tokens, ttft_ms)

    async def _generate(self, job: Job, role: str, *, hand_over: bool) -> None:
        if not self._resume or not follow(job):
            await self._attempts(job, role, hand_over=hand_over)
            return
        try:
            await self._attempts(job, role, hand_over=hand_over)
        except Failure as failure:
            if not job.responder.started:
                raise
            job.error = failure.message
            job.responder.write(error_event(failure.message, "worker_lost"))
            job.responder.end()

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
            await self._legs.answer(worker, job, body, leg=worker.role, resend=pair.prefill is None)
        except LegFailed as error:
            raise _failure(error) from None

    async def _attempts(self, job: Job, role: str, *, hand_over: bool) -> None:
        """Attempts until one answers, or nothing else may be tried (see `retry`)."""
        self._budget.earn()
        trail = Trail()
        while True:
            if not self._workers.ready(role):
                raise self._none_ready()
            params = await self._prefill(job, trail) if hand_over else None
            if params is None:
                hand_over = False
                job.mode = "decode-only" if role == "decode" else "aggregated"
                job.prefill = job.spans.prefill_sent = None
            else:
                job.mode = "disaggregated"
            worker = self._pick(role, trail, job)
            if worker is None:
                raise self._none_ready()
            body = job.body if params is None else decode_body(job.body, params)
            hold = not trail.last and (params is not None or self._others(role, trail, worker))
            self._workers.chooser.began(worker, job.ask)
            try:
                await self._legs.answer(worker, job, body, leg=role, hold=hold, resend=params is None)
            except LegFailed as error:
                self._after_answer(job, trail, error, role)
                if error.begun:
                    await self._carry_on(job, trail, error, role)
            else:
                self._workers.trust(worker)
                return
            finally:
                self._workers.chooser.ended(worker, job.ask)

    def _after_answer(self, job: Job, trail: Trail, error: LegFailed, role: str) -> None:
        """Returns where another attempt may be made, else raises what the client is told."""
        worker = error.worker
        prefill = None if error.begun else job.prefill  # what has begun had its KV cache
        serves = prefill is not None and any(w.id == prefill for w in self._workers.ready("prefill"))
        verdict = after_answer(
            trail,
            worker.id,
            error.reason,
            prefill=prefill,
            prefill_serves=serves,
            others=self._others(role, trail, worker),
            spend=self._budget.spend,
        )
        blameless = ("engine_error", "stale", "kv_lost")
        if error.reason not in blameless or (error.reason == "engine_error" and prefill is None):
            self._workers.suspect(worker)
        if verdict == "give up":
            raise _failure(error) from None
        if verdict == "no budget":
            self._counts.budget_exhausted()
            why = f"{error}, and too many requests are being tried again already"
            raise Failure(503, why, code="retry_budget", headers=[_RETRY_AFTER]) from None
        self._counts.retried(role, error.reason)

    async def _carry_on(self, job: Job, trail: Trail, error: LegFailed, role: str) -> None:
        """The next attempt goes on with what the client has."""
        worker = next((w for w in self._workers.ready(role) if w.id not in trail.answers), None)
        if worker is None or not await carry_on(job, self._legs, worker):
            raise _failure(error) from None
        self._counts.resumed()

    async def _prefill(self, job: Job, trail: Trail) -> bytes | None:
        """Parameters from a prefill worker; None: decode serves alone."""
        if job.fields is None:
            return None
        body = prefill_body(job.fields)
        failed = False
        while len(trail.prefills) < MAX_PREFILLS:
            worker = self._workers.pick("prefill", trail.prefills, job.ask)
            if worker is None:
                break
            self._workers.chooser.began(worker, job.ask)
            try:
                reply = await self._legs.prefill(worker, job, body)
                params = self._legs.params(worker, job, reply)
            except LegFailed as error:
                failed = True
                others = self._others("prefill", trail, worker)
                verdict = after_prefill(trail, worker.id, error.status, others=others, spend=self._budget.spend)
                if verdict == "client":
                    raise _failure(error) from None
                self._workers.suspect(worker)
                if verdict == "alone":
                    break
                self._counts.retried("prefill", error.reason)
            else:
                self._workers.trust(worker)
                if params is None:
                    self._counts.degraded("nothing_kept")
                return params
            finally:
                self._workers.chooser.ended(worker, job.ask)
        self._counts.degraded("handover_failed" if trail.lost else "prefill_failed" if failed else "no_prefill")
        return None

    def _pick(self, role: str, trail: Trail, job: Job) -> Worker | None:
        """A worker that has not failed this request, or the last one again where that makes sense."""
        pick = self._workers.pick
        return pick(role, trail.answers, job.ask) or (pick(role, (), job.ask) if trail.same else None)

    def _others(self, role: str, trail: Trail, worker: Worker) -> bool:
        tried = trail.prefills if role == "prefill" else trail.answers
        return any(w.id not in tried and w.id != worker.id for w in self._workers.ready(role))

    def _none_ready(self) -> Failure:
        return Failure(503, self._reason(), code="no_worker", headers=[_RETRY_AFTER])

    def _named(self, worker_id: str) -> Worker:
        worker = self._workers.get(worker_id)
        if worker is None:
            raise Failure(400, f"there is no worker {worker_id!r}", code="no_such_worker")
        if worker.state not in ("proving", "ready", "unhealthy"):
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
