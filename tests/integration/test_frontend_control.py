"""The router and its supervisor: tables and figures come in, requests and health are reported."""

from __future__ import annotations

import asyncio
from pathlib import Path

from frontend_harness import both_loops, on_uvloop, until
from frontend_process import frontend
from stub_engine import StubEngine, prefill_reply, reply, stream, text_event
from supervisor_harness import Supervisor, table

from dynctl.frontend.busy import Busy
from dynctl.frontend.control import ControlLink
from dynctl.frontend.messages import Hello, WindowFigures, WorkerEntry, WorkerTable
from dynctl.frontend.metrics import Metrics
from dynctl.frontend.outbox import Outbox
from dynctl.frontend.workers import Workers

DONE = b"data: [DONE]\n\n"


@on_uvloop
async def test_the_supervisor_feeds_the_router_and_hears_of_requests(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "s")
    token = tmp_path / "token"
    token.write_text("t0k\n")
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(stream(text_event("a"), DONE)) as d,
        frontend({"DYNCTL_TOKEN_FILE": str(token)}, control=str(supervisor.path)) as router,
    ):
        assert (await router.health())["status"] == "down"
        assert (await router.ask()).status_code == 503
        supervisor.table = table(p.url, d.url, "proving")
        await supervisor.start()
        await until(lambda: router.said("prefill-0 proving, decode-0 proving; down"))
        assert supervisor.hellos == [Hello(pid=router.process.pid)]
        directed = {"X-Dynctl-Token": "t0k", "X-Dynctl-Pair": "prefill-0>decode-0"}
        assert (await router.ask(directed)).status_code == 200
        assert (await router.ask()).status_code == 503
        supervisor.push(table(p.url, d.url))
        await until(lambda: router.said("decode-0 ready; ok"))
        assert (await router.ask({"X-Request-Id": "mine"})).status_code == 200
        await until(lambda: any(record.id == "mine" for record in supervisor.records))
        record = next(record for record in supervisor.records if record.id == "mine")
        assert (record.status, record.mode, record.directed) == (200, "disaggregated", False)
        assert [record.directed for record in supervisor.records].count(True) == 1
        await until(lambda: supervisor.reports[-1].in_flight == 0)
        last = supervisor.reports[-1]
        assert (last.requests_total, last.errors_total, last.health) == (3, 2, "ok")
        supervisor.push(WindowFigures(figures={"transfer": 6.5, "first_decode": None}))
        supervisor.say(b'{"op":"from the future"}\n{nonsense\n')
        await until(lambda: router.said("not understood"))
        text = (await router.http.get(router.url + "/metrics")).text
        assert 'dynctl_ttft_window_seconds{part="transfer"} 0.0065' in text
        assert (await router.ask()).status_code == 200
        await supervisor.stop()


@on_uvloop
async def test_the_last_table_serves_on_while_the_supervisor_is_away(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "s")
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(stream(text_event("a"), DONE)) as d,
        frontend(control=str(supervisor.path)) as router,
    ):
        supervisor.table = table(p.url, d.url)
        await supervisor.start()
        await until(lambda: router.said("; ok"))
        await supervisor.stop()
        await until(lambda: router.said("going on with the last table"))
        for number in range(3):
            assert (await router.ask({"X-Request-Id": f"away-{number}"})).status_code == 200
        back = Supervisor(supervisor.path)
        back.table = table(p.url, d.url)
        await back.start()
        await until(lambda: len(back.records) >= 3)
        assert [record.id for record in back.records] == ["away-0", "away-1", "away-2"]
        assert len(back.hellos) == 1
        await until(lambda: router.said("connected again"))
        quiet = len(back.reports)
        await asyncio.sleep(0.5)
        assert len(back.reports) <= quiet + 1  # nothing changed: nothing said
        back.push(table(p.url, d.url, "draining"))
        await until(lambda: router.said("decode-0 draining; down"))
        assert (await router.ask()).status_code == 503  # the new supervisor's word counts
        await back.stop()


@on_uvloop
async def test_the_last_records_are_reported_before_the_end(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "s")
    async with StubEngine(reply("{}")) as d:
        async with frontend(control=str(supervisor.path)) as router:
            entry = WorkerEntry(id="decode-0", role="decode", url=d.url, state="ready")
            supervisor.table = WorkerTable(workers=(entry,))
            await supervisor.start()
            await until(lambda: router.said("; ok"))
            assert (await router.ask({"X-Request-Id": "last"})).status_code == 200
        await until(lambda: any(record.id == "last" for record in supervisor.records))
        await supervisor.stop()


@both_loops
async def test_a_link_that_was_never_up_keeps_trying_quietly(tmp_path: Path) -> None:
    lines: list[str] = []
    workers = Workers()
    outbox = Outbox(workers, Metrics(workers), Busy())
    tables: list[WorkerTable] = []
    link = ControlLink(tmp_path / "s", outbox, on_table=tables.append, on_window=lambda _: None, log=lines.append)
    running = asyncio.create_task(link.run())
    await until(lambda: len(lines) == 1)
    await asyncio.sleep(0.4)
    assert len(lines) == 1
    supervisor = Supervisor(tmp_path / "s")
    await supervisor.start()
    await until(lambda: len(tables) == 1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await supervisor.stop()
