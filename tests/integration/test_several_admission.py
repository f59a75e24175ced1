"""The limit on running requests is one for all processes of a frontend; who waits, waits in the process it came to."""

from __future__ import annotations

import asyncio
import os
import signal

import httpx
from frontend_harness import BODY, on_uvloop
from frontend_process import Process, frontend
from several_harness import ANSWER, DONE, ask, clients, counted, held, ready, siblings
from stub_engine import Asked, Script, StubEngine, reply


async def waiting(router: Process, count: int) -> None:
    """So many requests wait, in all processes together."""
    end = asyncio.get_running_loop().time() + 20
    while counted((await router.http.get(router.url + "/metrics")).text, "dynctl_requests_waiting") != count:
        assert asyncio.get_running_loop().time() < end, "not as many wait"


class Together:
    """An engine's script that takes a moment, and how many requests were in it at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def script(self, answer: Script) -> Script:
        async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.005)
            self.now -= 1
            await answer(asked, writer)

        return script


@on_uvloop
async def test_no_more_run_than_may_whichever_process_they_come_to() -> None:
    together = Together()
    async with (
        StubEngine(together.script(reply("{}"))) as engine,
        frontend(worker=[engine.url], processes=2, max_running=3) as router,
    ):
        await ready(router)
        async with clients(router) as (here, there):
            for client in (here, there):  # each has its share of the crowd
                assert (await ask(client)).status_code == 200
        answers = await asyncio.gather(*(router.ask() for _ in range(120)))
        assert [answer.status_code for answer in answers] == [200] * 120
        assert together.most == 3
        text = (await router.http.get(router.url + "/metrics")).text
        assert counted(text, "dynctl_requests_waiting") == 0


@on_uvloop
async def test_a_place_that_one_process_gives_back_is_taken_in_another() -> None:
    release = asyncio.Event()
    async with (
        StubEngine(held(release)) as engine,
        frontend(worker=[engine.url], processes=2, max_running=1) as router,
    ):
        await ready(router)
        async with clients(router) as (here, there):
            for first, second in ((here, there), (there, here)):
                release.clear()
                asked = len(engine.asked)
                async with first.stream("POST", "/v1/completions", content=BODY) as under_way:
                    assert under_way.status_code == 200
                    waits = asyncio.create_task(ask(second))
                    await waiting(router, 1)
                    assert len(engine.asked) == asked + 1
                    release.set()
                    assert (await under_way.aread()).endswith(DONE)
                    assert (await waits).content.endswith(DONE)
                assert len(engine.asked) == asked + 2


@on_uvloop
async def test_a_process_that_is_killed_gives_its_places_back() -> None:
    release = asyncio.Event()
    async with (
        StubEngine(held(release)) as engine,
        frontend(worker=[engine.url], processes=2, max_running=1) as router,
    ):
        await ready(router)
        (victim,) = siblings(router)
        async with clients(router) as (here, there), there.stream("POST", "/v1/completions", content=BODY) as cut:
            assert cut.status_code == 200
            waits = asyncio.create_task(ask(here))
            await waiting(router, 1)
            engine.script = ANSWER
            os.kill(victim, signal.SIGKILL)
            assert (await waits).status_code == 200
            release.set()
        await ready(router, 2)
        async with clients(router) as each:
            for client in each:
                assert (await ask(client)).status_code == 200


@on_uvloop
async def test_waiting_has_an_end_and_the_room_for_it_is_that_of_all() -> None:
    release = asyncio.Event()
    async with (
        StubEngine(held(release)) as engine,
        frontend(worker=[engine.url], processes=2, max_running=1, max_waiting=1, longest_wait=5.0) as router,
    ):
        await ready(router)
        async with (
            clients(router) as (here, there),
            here.stream("POST", "/v1/completions", content=BODY) as under_way,
            httpx.AsyncClient(base_url=router.url, timeout=30.0, trust_env=False) as anyone,
        ):
            assert under_way.status_code == 200
            waits = asyncio.create_task(ask(there))
            await waiting(router, 1)
            refused = await ask(anyone)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
            late = await waits
            assert (late.status_code, late.json()["error"]["code"]) == (503, "queue_timeout")
            assert int(late.headers["retry-after"]) >= 1
            release.set()
            assert (await under_way.aread()).endswith(DONE)
            assert len(engine.asked) == 1
