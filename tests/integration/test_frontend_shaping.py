"""Requests wait their turn or are refused; prompts with little to compute go to decode alone."""

from __future__ import annotations

import asyncio

from frontend_harness import BODY, Router, on_uvloop, until
from stub_engine import STREAM_HEAD, Asked, Script, StubEngine, chunk, prefill_reply, stream, text_event

from dynctl.frontend.admission import AdmissionLimits
from dynctl.frontend.shaping import Shaping

DONE = b"data: [DONE]\n\n"


def held(until_set: asyncio.Event) -> Script:
    """An answer whose end comes when the event is set."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(text_event("a")))
        await until_set.wait()
        writer.write(chunk(DONE) + b"0\r\n\r\n")

    return script


async def metric(router: Router, line: str) -> bool:
    return line in (await router.http.get("/metrics")).text


@on_uvloop
async def test_one_runs_one_waits_and_one_is_refused() -> None:
    go = asyncio.Event()
    shaping = Shaping(admission=AdmissionLimits(running=1, queue=1))
    async with StubEngine(held(go)) as engine, Router(shaping=shaping) as router:
        router.table(decode_0=engine.url)
        first = asyncio.create_task(router.ask())
        await until(lambda: len(engine.asked) == 1)
        second = asyncio.create_task(router.ask())
        for _ in range(500):
            if await metric(router, "dynctl_requests_waiting 1.0"):
                break
        refused = await router.ask()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["code"] == "queue_full"
        assert len(engine.asked) == 1
        go.set()
        assert [(await one).status_code for one in (first, second)] == [200, 200]
        assert len(engine.asked) == 2
        assert await metric(router, 'dynctl_refused_requests_total{reason="queue_full"} 1.0')


@on_uvloop
async def test_who_waits_too_long_gets_503() -> None:
    go = asyncio.Event()
    shaping = Shaping(admission=AdmissionLimits(running=1, queue=1, wait_s=0.05))
    async with StubEngine(held(go)) as engine, Router(shaping=shaping) as router:
        router.table(decode_0=engine.url)
        first = asyncio.create_task(router.ask())
        await until(lambda: len(engine.asked) == 1)
        late = await router.ask()
        assert (late.status_code, late.json()["error"]["code"]) == (503, "queue_timeout")
        assert "retry-after" in late.headers
        go.set()
        assert (await first).status_code == 200


@on_uvloop
async def test_short_prompts_go_to_decode_alone() -> None:
    good = stream(text_event("x"), DONE)
    async with (
        StubEngine(prefill_reply()) as prefill,
        StubEngine(good) as decode,
        Router(shaping=Shaping(alone=10)) as router,
    ):
        router.table(prefill_0=prefill.url, decode_0=decode.url)
        assert (await router.ask(BODY)).status_code == 200
        assert [len(prefill.asked), len(decode.asked)] == [0, 1]
        assert (await router.record()).mode == "decode-only"
        long = b'{"prompt":"%b","stream":true}' % (b"long " * 30)
        assert (await router.ask(long)).status_code == 200
        assert [len(prefill.asked), len(decode.asked)] == [1, 2]
        assert (await router.record(2)).mode == "disaggregated"
        assert await metric(router, "dynctl_decode_alone_tokens 10.0")
        assert "dynctl_degraded_requests_total{" not in (await router.http.get("/metrics")).text


@on_uvloop
async def test_prompts_that_decode_has_seen_go_there_alone() -> None:
    good = stream(text_event("x"), DONE)
    async with (
        StubEngine(prefill_reply()) as prefill,
        StubEngine(good) as decode,
        Router(shaping=Shaping(alone=100), routing="cache-aware") as router,
    ):
        router.table(prefill_0=prefill.url, decode_0=decode.url)
        for turns in (1, 2):
            body = b'{"prompt":"%b%b","stream":true}' % (b"the same beginning " * 100, b" more" * turns)
            assert (await router.ask(body)).status_code == 200
        assert [len(prefill.asked), len(decode.asked)] == [1, 2]
