"""Which of several workers gets a request: in turn, by its beginning, by what is under way."""

from __future__ import annotations

import asyncio

from frontend_harness import Router, on_uvloop, until
from pair_harness import DONE, pair
from stub_engine import StubEngine, prefill_reply, silent, stream, text_event


@on_uvloop
async def test_round_robin_over_both_pools() -> None:
    async with pair() as (router, p0, d0), StubEngine(p0.script) as p1, StubEngine(d0.script) as d1:
        router.table(prefill_0=p0.url, prefill_1=p1.url, decode_0=d0.url, decode_1=d1.url)
        for _ in range(8):
            await router.ask()
        assert [len(engine.asked) for engine in (p0, p1, d0, d1)] == [4, 4, 4, 4]


@on_uvloop
async def test_both_legs_of_a_chat_go_where_its_beginning_was() -> None:
    async with (
        pair(router=Router(routing="cache-aware")) as (router, p0, d0),
        StubEngine(p0.script) as p1,
        StubEngine(d0.script) as d1,
    ):
        router.table(prefill_0=p0.url, prefill_1=p1.url, decode_0=d0.url, decode_1=d1.url)
        for turn in range(1, 7):
            for chat in ("spring ", "autumn "):
                prompt = chat * 50 * turn
                answer = await router.ask(b'{"prompt":"%s","stream":true}' % prompt.encode())
                assert answer.status_code == 200
        for engines in ((p0, p1), (d0, d1)):
            chats = [{asked.body[11:17] for asked in engine.asked} for engine in engines]
            assert sorted(map(len, chats)) == [1, 1]
            assert chats[0] != chats[1]


@on_uvloop
async def test_a_worker_with_a_long_prompt_under_way_is_spared() -> None:
    async with (
        StubEngine(prefill_reply()) as p0,
        StubEngine(stream(text_event("he"), DONE)) as d0,
        StubEngine(silent()) as d1,
        Router(routing="least-loaded") as router,
    ):
        router.table(prefill_0=p0.url, decode_0=d1.url, decode_1=d0.url)
        long = asyncio.create_task(router.ask(b'{"prompt":"%s","stream":true}' % (b"x" * 9000)))
        await until(lambda: bool(d1.asked))
        for _ in range(4):
            await router.ask(b'{"prompt":"short","stream":true}')
        assert len(d1.asked) == 1
        long.cancel()
        await until(lambda: router.app.metrics.in_flight == 0)
        assert router.workers.chooser.outstanding == {}
