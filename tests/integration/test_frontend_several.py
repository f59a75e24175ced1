"""A frontend of several processes: one port, one view of load and of health, one answer of what was counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import psutil
import pytest
from frontend_harness import BODY, bound, on_uvloop, until
from frontend_process import frontend
from several_harness import ANSWER, DONE, ask, clients, counted, held, ready, siblings
from stub_engine import StubEngine, prefill_reply, stream, text_event
from supervisor_harness import Supervisor, table

from dynctl.frontend.messages import WorkerEntry, WorkerTable


class Killed(Exception):
    """The router was killed, so it did not end well."""


@on_uvloop
async def test_every_process_serves_and_answers_for_all() -> None:
    async with StubEngine(ANSWER) as engine, frontend(worker=[engine.url], processes=3) as router:
        await ready(router, 2)
        async with clients(router) as each:
            for turns, client in enumerate(each, 1):
                for _ in range(turns):
                    assert (await ask(client)).status_code == 200
            for client in each:
                text = (await client.get("/metrics")).text
                assert counted(text, "dynctl_requests_total") == 6
                assert counted(text, "dynctl_up") == 1
                assert counted(text, "dynctl_worker_ready") == 1
                told = (await client.get("/dynctl/requests")).json()["requests"]
                assert len({one["id"] for one in told}) == 6
                assert (await client.get("/health")).json()["status"] == "ok"


@on_uvloop
async def test_least_loaded_sees_what_another_process_has_under_way() -> None:
    release = asyncio.Event()
    async with (
        StubEngine(held(release)) as one,
        StubEngine(held(release)) as two,
        frontend(worker=[one.url, two.url], processes=2, routing="least-loaded") as router,
    ):
        await ready(router)
        async with clients(router) as (here, there):
            async with here.stream("POST", "/v1/completions", content=BODY) as under_way:
                assert under_way.status_code == 200
                busy, free = (one, two) if one.asked else (two, one)
                free.script = ANSWER
                for _ in range(4):
                    assert (await ask(there)).status_code == 200
                assert (len(busy.asked), len(free.asked)) == (1, 4)
                release.set()
                await under_way.aread()
            busy.script = ANSWER
            for _ in range(4):
                assert (await ask(there)).status_code == 200
            assert len(busy.asked) == 3


@on_uvloop
async def test_a_change_of_the_table_is_honoured_by_all_and_reports_are_of_all(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "s")
    await supervisor.start()
    async with (
        StubEngine(prefill_reply()) as prefill,
        StubEngine(stream(text_event("a"), DONE)) as one,
        StubEngine(stream(text_event("b"), DONE)) as two,
    ):
        entries = [
            *table(prefill.url, one.url).workers,
            WorkerEntry(id="decode-1", role="decode", url=two.url, state="ready"),
        ]
        supervisor.table = WorkerTable(workers=tuple(entries), expected={"prefill": 1, "decode": 2})
        async with frontend(control=str(supervisor.path), processes=2) as router:
            await ready(router)
            async with clients(router) as each:
                for client in each:
                    for _ in range(2):
                        assert (await ask(client)).status_code == 200
                assert (len(one.asked), len(two.asked)) == (2, 2)
                entries[1] = WorkerEntry(id="decode-0", role="decode", url=one.url, state="draining")
                supervisor.push(WorkerTable(workers=tuple(entries), expected={"prefill": 1, "decode": 2}))
                await until(lambda: router.said("decode-0 draining"))
                for client in each:
                    for _ in range(3):
                        assert (await ask(client)).status_code == 200
                assert len(one.asked) == 2
                await until(lambda: supervisor.reports[-1].requests_total == 10)
                assert len({record.id for record in supervisor.records}) == 10
        assert supervisor.reports[-1].leaving
    await supervisor.stop()


@on_uvloop
async def test_a_further_process_that_is_killed_comes_back_and_harms_no_other() -> None:
    release = asyncio.Event()
    async with StubEngine(ANSWER) as engine, frontend(worker=[engine.url], processes=2) as router:
        await ready(router)
        (victim,) = siblings(router)
        async with clients(router) as (here, there):
            for client in (here, there):
                assert (await ask(client)).status_code == 200
            assert counted((await here.get("/metrics")).text, "dynctl_requests_total") == 2
            engine.script = held(release)
            async with here.stream("POST", "/v1/completions", content=BODY) as under_way:
                os.kill(victim, signal.SIGKILL)
                await until(lambda: router.said("killed by SIGKILL"))
                await ready(router, 2)
                release.set()
                assert (await under_way.aread()).endswith(DONE)
            assert victim not in siblings(router)
        engine.script = ANSWER
        async with clients(router) as each:
            for client in each:
                assert (await ask(client)).status_code == 200
                assert counted((await client.get("/metrics")).text, "dynctl_requests_in_flight") == 0
            assert counted((await each[1].get("/metrics")).text, "dynctl_requests_total") == 5


@on_uvloop
async def test_while_a_process_is_away_its_connections_are_taken_by_the_first() -> None:
    async with StubEngine(ANSWER) as engine, frontend(worker=[engine.url], processes=2) as router:
        await ready(router)
        (victim,) = siblings(router)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: router.said("killed by SIGKILL"))
        for _ in range(20):  # each connection goes to either socket by chance
            async with httpx.AsyncClient(base_url=router.url, timeout=30.0, trust_env=False) as client:
                assert (await ask(client)).status_code == 200


@on_uvloop
async def test_the_others_end_with_the_first() -> None:
    async with StubEngine(ANSWER) as engine:
        port = bound()
        free = port.getsockname()[1]
        port.close()
        with contextlib.suppress(Killed):
            async with frontend(worker=[engine.url], processes=3, port=free) as router:
                await ready(router, 2)
                others = [psutil.Process(pid) for pid in siblings(router)]
                assert len(others) == 2
                router.process.kill()
                await until(lambda: not any(one.is_running() for one in others))
                raise Killed
        async with frontend(worker=[engine.url], processes=2, port=free) as again:
            await ready(again)


@on_uvloop
async def test_a_stop_drains_all_processes() -> None:
    release = asyncio.Event()
    async with StubEngine(held(release)) as engine, frontend(worker=[engine.url], processes=2) as router:
        await ready(router)
        async with clients(router) as each, AsyncExitStack() as stack:
            under_way = [
                await stack.enter_async_context(client.stream("POST", "/v1/completions", content=BODY))
                for client in each
            ]
            router.process.terminate()
            await until(lambda: router.said("frontend stopping"))
            release.set()
            for one in under_way:
                assert (await one.aread()).endswith(DONE)
        assert await asyncio.wait_for(router.process.wait(), 20) == 0
        assert router.said("frontend stopped")
        assert not router.said("were cut")


@on_uvloop
async def test_another_frontend_is_refused_a_port_that_one_shares() -> None:
    async with StubEngine(ANSWER) as engine, frontend(worker=[engine.url], processes=2) as router:
        port = int(router.url.rpartition(":")[2])
        with pytest.raises(AssertionError, match="ended before it listened"):
            async with frontend(worker=[engine.url], processes=2, port=port):
                pass


@on_uvloop
async def test_a_unix_socket_is_shared_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with StubEngine(ANSWER) as engine, frontend(worker=[engine.url], processes=2, uds=str(path)) as router:
        await ready(router)
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://f", timeout=30.0) as client:
            for _ in range(4):
                assert (await ask(client)).status_code == 200
            assert counted((await client.get("/metrics")).text, "dynctl_requests_total") == 4
    assert not path.exists()
