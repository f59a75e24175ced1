"""Watches a ready run: scrapes the engines, takes the frontend's reports, keeps the TTFT split of the last minute."""

from __future__ import annotations

import asyncio
import time

import httpx

from dynctl.frontend.messages import Report, RequestRecord
from dynctl.plan.values import Plan
from dynctl.runtime.beat import last_beat
from dynctl.telemetry.canaries import OF_CANARY
from dynctl.telemetry.scrape import EngineSample, sample, totals
from dynctl.telemetry.status import FrontendStatus, TtftStatus
from dynctl.telemetry.window import EngineWindow, RequestWindow, split

SCRAPE_S = 2.0


class Observer:
    """Numbers of one run. Engines are asked only while there is traffic to explain."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._engines = {process.id: EngineWindow() for process in plan.workers()}
        self._requests = RequestWindow()
        self._report = Report()
        self._heard = False
        self._scraped = (-1, -1)
        self._worked: dict[str, float] = {}
        self._told_of = -1
        self._turn = 0.0

    def follow(self, plan: Plan) -> None:
        """The plan is another now: figures of workers that stay are kept."""
        self._plan = plan
        self._engines = {process.id: self._engines.get(process.id, EngineWindow()) for process in plan.workers()}

    def take(self, report: Report) -> list[RequestRecord]:
        """A report of the frontend; the users' requests in it."""
        self._report, self._heard = report, True
        now = time.monotonic()
        for record in report.requests:
            self._requests.add(record, now)
            if record.status == 200:
                self._worked.update(dict.fromkeys(filter(None, (record.prefill, record.decode)), now))
        return [record for record in report.requests if not record.directed]

    def worked_at(self, process_id: str) -> float:
        """When the frontend last reported a request that the worker served: monotonic seconds, long ago if never."""
        return self._worked.get(process_id, float("-inf"))

    # what dynctl's own requests add to the engines' counters is none of the window's

    def restarted(self, process_id: str) -> None:
        """Its counters begin anew."""
        if process_id in self._engines:
            self._engines[process_id] = EngineWindow()

    def counts_canaries(self, process_id: str) -> bool:
        """Whether a canary there adds to figures of the split: it computes a prompt, as prefill workers do."""
        return process_id in self._engines and self._plan.process(process_id).role != "decode"

    def canary_begins(self, process_id: str) -> None:
        """A canary is sent there."""
        if process_id in self._engines:
            self._engines[process_id].canary_begins()

    def canary_ends(self, process_id: str, metrics: str | None, *, answered: bool) -> None:
        """It has ended; the engine's metrics right after its token, where they could be had."""
        if process_id in self._engines:
            self._engines[process_id].canary_ends(totals(metrics, OF_CANARY) if metrics else None, answered=answered)

    def proof(self, process_id: str, now: EngineSample | None, *, begins: bool) -> None:
        """A proof begins or ends there; `now`: its counters, where they can be read."""
        if process_id in self._engines:
            self._engines[process_id].proof(now, begins=begins)

    async def look(self, http: httpx.AsyncClient) -> dict[str, float | None] | None:
        """Scrapes, once in `SCRAPE_S`; what the frontend must hear then."""
        turn = last_beat(time.monotonic(), SCRAPE_S)
        if turn == self._turn:
            return None
        self._turn = turn
        await self.scrape(http)
        return self.news()

    async def scrape(self, http: httpx.AsyncClient) -> None:
        """One round over all engines, if requests ended since the last but one: engines count a little late.

        Else over those of which nothing is known yet: what they count next is to be a user's.
        """
        total = self._report.requests_total
        idle = self._scraped == (total, total)
        self._scraped = (self._scraped[1], total)
        asked = [process_id for process_id, window in self._engines.items() if window.is_new or not idle]
        await asyncio.gather(*(self._scrape(http, process_id) for process_id in asked))

    async def _scrape(self, http: httpx.AsyncClient, process_id: str) -> None:
        if process_id not in self._engines:
            return  # it has just left the run
        probes = self._plan.process(process_id).probes
        if not (probes.url and probes.metrics):
            return
        try:
            response = await http.get(f"{probes.url}{probes.metrics}")
        except httpx.HTTPError:
            return
        if response.status_code == 200 and process_id in self._engines:
            self._engines[process_id].add(sample(response.text, time.monotonic()))

    def ttft(self) -> TtftStatus:
        """The split of the last window."""
        prefills, decodes = self._of("prefill"), self._of("decode") or self._of("worker")
        movers = decodes if self._plan.transport.direction == "pull" else prefills
        return split(self._requests.recent(time.monotonic()), prefills or decodes, decodes, movers)

    def news(self) -> dict[str, float | None] | None:
        """The engines' part of the split; None while no request came since it was last told as of an empty window."""
        total, empty = self._report.requests_total, not self._requests.recent(time.monotonic())
        if empty and total == self._told_of:
            return None
        self._told_of = total if empty else -1
        return self.ttft().window

    def busy(self, process_id: str) -> int:
        """Requests that the frontend has under way there, by its last report."""
        return self._report.busy.get(process_id, 0)

    def frontend(self) -> FrontendStatus:
        """The frontend as it last reported."""
        if not self._heard:
            return FrontendStatus(url=self._plan.frontend_url)
        report = self._report
        return FrontendStatus(
            url=self._plan.frontend_url,
            health=report.health,
            reason=report.reason,
            requests_per_s=self._requests.rate_per_s(time.monotonic()),
            in_flight=report.in_flight,
            requests_total=report.requests_total,
            errors_total=report.errors_total,
        )

    def _of(self, role: str) -> list[EngineWindow]:
        return [self._engines[process.id] for process in self._plan.workers() if process.role == role]
