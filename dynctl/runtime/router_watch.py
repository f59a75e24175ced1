"""Whether vllm-router serves, seen from outside: by completions through it, and by what is known of its workers."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from typing import Literal, Protocol

import httpx
import msgspec

from dynctl.frontend.messages import Report
from dynctl.plan.values import Plan
from dynctl.proof.client import ProofError
from dynctl.proof.clients import client_of
from dynctl.proof.router import RouterClient
from dynctl.runtime.apart import apart
from dynctl.runtime.managed import Managed
from dynctl.runtime.observer import Observer
from dynctl.runtime.proving import Proving
from dynctl.telemetry.scrape import samples

ANSWER_SHARE = 0.75
"""The part of a period that an answer may take."""
FIGURES: Mapping[str, str] = {
    "vllm_router_pd_request_duration_seconds_count": "finished",
    "vllm_router_pd_requests_total": "total",
    "vllm_router_pd_prefill_errors_total": "errors",
    "vllm_router_pd_decode_errors_total": "errors",
    "vllm_router_pd_errors_total": "errors",
    "vllm_router_pd_pending_decode_requests": "in_flight",
    "vllm_router_pd_active_decode_requests": "in_flight",
}
UNROUTED = "server_selection"
"""Errors of this type are none of the requests that it counts."""


class Run(Protocol):
    """What is needed of the supervisor."""

    plan: Plan
    processes: dict[str, Managed]
    proving: Proving
    observer: Observer
    http: httpx.AsyncClient

    def frontend_reported(self, report: Report) -> None:
        """Takes what the frontend tells."""

    def is_ready(self) -> bool:
        """Whether every gate was open once."""

    @property
    def stopping(self) -> bool:
        """Whether the run ends."""


class _Figures(msgspec.Struct):
    finished: int = 0
    total: int = 0
    errors: int = 0
    in_flight: int = 0


class RouterWatch:
    """Its own health endpoint says 200 long after a worker was lost, and nothing of single requests is told.

    A completion of one token goes through it once in a period, unless users' requests are seen to be served.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._figures = _Figures()
        self._starts = self._own_errors = 0
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = self._worked_at = float("-inf")
        self._problem: str | None = None

    async def round(self) -> None:
        """Looks once."""
        run = self._run
        if not run.is_ready():
            return
        router = run.processes["frontend"]
        if router.restarts != self._starts:  # it counts anew
            self._starts, self._figures, self._own_errors = router.restarts, _Figures(), 0
            run.proving.asked.clear()
        await self._count()
        self._ask()
        health, reason = await self._health(router)
        if run.stopping:  # it was told to end, and may be gone
            return
        own = len(run.proving.asked)
        run.frontend_reported(
            Report(
                in_flight=self._figures.in_flight,
                requests_total=max(0, self._figures.total - own),
                errors_total=max(0, self._figures.errors - self._own_errors),
                health=health,
                reason=reason,
            )
        )

    async def _count(self) -> None:
        port = self._run.plan.process("frontend").ports["metrics"]
        try:
            text = (await self._run.http.get(f"http://127.0.0.1:{port}/metrics")).text
        except httpx.HTTPError:
            return
        found, before = figures(text), self._figures
        if found.finished - before.finished > found.errors - before.errors:
            self._worked_at = time.monotonic()
        self._figures = found

    def _ask(self) -> None:
        """Sends the next canary when it is due."""
        since, now = self._asked_at if self._problem else max(self._asked_at, self._worked_at), time.monotonic()
        if now - since < self._run.plan.health.canary_s or (self._asking and not self._asking.done()):
            return
        self._asked_at = now
        self._asking = asyncio.create_task(self._canary())

    async def _canary(self) -> None:
        run = self._run
        limit_s = run.plan.health.canary_s * ANSWER_SHARE
        serving = [worker.id for worker in run.plan.workers() if run.processes[worker.id].state == "ready"]
        async with client_of(run.plan, "", run.proving.asked) as client, apart(client, run.observer, serving):
            assert isinstance(client, RouterClient)  # noqa: S101 - of such a plan
            try:
                async with asyncio.timeout(limit_s):
                    await client.through("Hi", 1, secrets.token_hex(8))
            except TimeoutError:
                served = self._worked_at > self._asked_at  # it waited behind others, whose requests ended well
                self._problem = None if served else f"a completion through it gave no token in {limit_s:g} s"
            except ProofError as error:
                self._problem = f"a completion through it failed: {error}"
                self._own_errors += ": HTTP " in str(error)  # else it has not reached it
            else:
                self._problem = None

    async def _health(self, router: Managed) -> tuple[Literal["ok", "degraded", "down"], str | None]:
        run = self._run
        if router.state != "ready":
            return "down", f"frontend is {router.state}"
        states = {worker.id: run.processes[worker.id].state for worker in run.plan.workers()}
        out = [f"{name} is {state}" for name, state in states.items() if state != "ready"]
        roles = {worker.role for worker in run.plan.workers()}
        serving = {run.plan.process(name).role for name, state in states.items() if state == "ready"}
        if not out and not self._problem:
            return "ok", None
        said = [*out, *([self._problem] if self._problem else []), await self._claim()]
        return ("down" if self._problem or roles - serving else "degraded"), "; ".join(said)

    async def _claim(self) -> str:
        """What it says of itself."""
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._run.http.get(f"{self._run.plan.frontend_url}/health", timeout=1)
            return f"its own /health says {answer.status_code}"
        return "its own /health does not answer"


def figures(text: str) -> _Figures:
    """Of its metrics."""
    found = _Figures()
    with contextlib.suppress(ValueError):
        for name, labels, value in samples(text, tuple(FIGURES)):
            if field := FIGURES.get(name):
                setattr(found, field, getattr(found, field) + int(value))
                if labels.get("error_type") == UNROUTED:
                    found.total += int(value)
                    found.finished += int(value)
    return found
