"""What Dynamo's frontend does: its trace and metrics become the reports of ours."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal, Protocol

import httpx
import msgspec

from dynctl.engines.dynamo_planes import TRACE
from dynctl.frontend.messages import Report, RequestRecord
from dynctl.proof.dynamo import worker_id
from dynctl.runtime.proving import Proving
from dynctl.runtime.registered import Registered
from dynctl.runtime.registered import Run as Registering
from dynctl.store.follow import Follower
from dynctl.store.run import RunStore
from dynctl.telemetry.dynamo_trace import record_of
from dynctl.telemetry.scrape import samples

WANTED = ("dynamo_frontend_requests_total", "dynamo_frontend_inflight_requests")


class Run(Registering, Protocol):
    """What is needed of the supervisor."""

    store: RunStore
    proving: Proving

    def frontend_reported(self, report: Report) -> None:
        """Takes what the frontend tells."""

    def is_ready(self) -> bool:
        """Whether every gate was open once."""

    @property
    def stopping(self) -> bool:
        """Whether the run ends."""


class _Ready(msgspec.Struct, frozen=True):
    ready: bool
    reason: str | None = None


class DynamoWatch:
    """Dynamo counts dynctl's own requests among the users': they are told apart by their ids."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._registered = Registered(run)
        self._follower = Follower(Path(run.store.dir) / TRACE)
        self._workers: dict[int, str] = {}

    async def round(self) -> None:
        """What the dead have registered, then what the frontend does."""
        await self._registered.look()
        await self.look()

    async def look(self) -> None:
        """What ended since the last one, how many are under way, whether the model can be served."""
        run = self._run
        lines = list(self._follower.lines())
        if lines and any(_unknown(record_of(line, self._workers)) for line in lines):
            await self._learn()
        found = [record for line in lines if (record := record_of(line, self._workers))]
        own = [record for record in found if record.id in run.proving.asked]
        run.proving.asked.difference_update(record.id for record in own)
        if not run.is_ready():
            return
        health, reason = await self._health()
        figures = await self._figures()
        if run.stopping:  # the frontend was told to end, and may be gone
            return
        run.frontend_reported(
            Report(
                requests=tuple(record for record in found if record not in own),
                in_flight=figures.get("in_flight", 0),
                requests_total=figures.get("total", 0),
                errors_total=figures.get("errors", 0),
                health=health,
                reason=reason,
            )
        )

    async def _learn(self) -> None:
        """Which process has which of Dynamo's ids now."""
        for process in self._run.plan.workers():
            with contextlib.suppress(httpx.HTTPError):
                answer = await self._run.http.get(f"{process.probes.url}{process.probes.metrics}")
                if (number := worker_id(answer.text)) is not None:
                    self._workers[number] = process.id

    async def _health(self) -> tuple[Literal["ok", "degraded", "down"], str | None]:
        plan = self._run.plan
        try:
            answer = await self._run.http.get(f"{plan.frontend_url}/v1/models/{plan.served_name}/ready")
            said = msgspec.json.decode(answer.content, type=_Ready)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            return "down", f"the frontend does not answer ({type(error).__name__})"
        return ("ok", None) if said.ready else ("down", said.reason or "the frontend has no worker for the model")

    async def _figures(self) -> dict[str, int]:
        try:
            text = (await self._run.http.get(f"{self._run.plan.frontend_url}/metrics")).text
        except httpx.HTTPError:
            return {}
        found = {"in_flight": 0, "total": 0, "errors": 0}
        with contextlib.suppress(ValueError):
            for name, labels, value in samples(text, WANTED):
                if name == "dynamo_frontend_inflight_requests":
                    found["in_flight"] += int(value)
                elif name == "dynamo_frontend_requests_total":
                    found["total"] += int(value)
                    found["errors"] += int(value) * (labels.get("status") == "error")
        return found


def _unknown(record: RequestRecord | None) -> bool:
    """Whether a worker in it is none that is known yet."""
    named = (record.prefill, record.decode) if record else ()
    return any(name.startswith("worker ") for name in named if name)
