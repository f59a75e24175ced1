"""What is said of Dynamo's frontend: that it serves, that it does not, and nothing once it has been told to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx

from dynctl.frontend.messages import Report
from dynctl.plan.facts import EngineFacts
from dynctl.plan.values import Plan
from dynctl.runtime.dynamo_watch import DynamoWatch
from dynctl.runtime.observer import Observer
from dynctl.runtime.proving import Proving
from dynctl.store.log import EventLog
from dynctl.store.run import RunStore
from tests.unit.plan.machines import CPU_1P1D, made

Answer = Callable[[httpx.Request], httpx.Response]


def serves(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"ready": True})


class Run:
    """A ready run of mockers whose frontend answers by a function."""

    def __init__(self, directory: Path, answer: Answer) -> None:
        engine = EngineFacts(python="/py", dynamo="1.6.1")
        self.plan: Plan = made(CPU_1P1D, "engine=dynamo-mocker", engine=engine)
        self.store = RunStore("run", directory)
        self.events = EventLog(directory / "events.jsonl", time.time)
        self.proving = Proving(self.plan, "token", {}, self.events, Observer(self.plan))
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        self.stopping = False
        self.reports: list[Report] = []

    def frontend_reported(self, report: Report) -> None:
        self.reports.append(report)

    def is_ready(self) -> bool:
        return True


def refuse(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


async def said(run: Run) -> list[str]:
    async with run.http:
        await DynamoWatch(run).look()
    run.events.close()
    return [report.health for report in run.reports]


async def test_a_frontend_that_serves(tmp_path: Path) -> None:
    assert await said(Run(tmp_path, serves)) == ["ok"]


async def test_a_frontend_that_does_not_answer(tmp_path: Path) -> None:
    assert await said(Run(tmp_path, refuse)) == ["down"]


async def test_nothing_is_said_of_a_frontend_that_ends_with_the_run(tmp_path: Path) -> None:
    def end_first(request: httpx.Request) -> httpx.Response:
        run.stopping = True  # `down` came while it was asked
        return refuse(request)

    run = Run(tmp_path, end_first)
    assert await said(run) == []
