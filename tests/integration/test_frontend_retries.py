"""Legs that are tried again: with parameters of their own, and within a budget."""

from __future__ import annotations

import asyncio

import pytest
from cluster_harness import DONE, GOOD, cluster
from frontend_harness import BODY, on_uvloop, until
from stub_engine import Asked, Script, event, hang_up, prefill_reply, reply, silent, stream, text_event

from dynctl.frontend.retry import RetryLimits


@on_uvloop
@pytest.mark.parametrize(
    "failure",
    [reply("EngineDead", 500), reply("draining", 503), stream(event({"error": {"message": "EngineDead"}}), DONE)],
    ids=["500", "503", "event"],
)
@pytest.mark.parametrize("handed_over", [True, False])
async def test_an_engine_whose_core_died_is_replaced(failure: Script, handed_over: bool) -> None:
    """The API server lives on and answers with errors, while the worker is still ready in the table."""
    body = BODY if handed_over else BODY[:-1] + b',"n":2}'
    async with cluster(prefill_0=prefill_reply(), decode_0=failure, decode_1=GOOD) as c:
        for _ in range(4):
            assert (await c.router.ask(body)).content == text_event("x") + DONE
        used = {record.mode for record in c.router.records}
        assert used == ({"disaggregated"} if handed_over else {"decode-only"})


@on_uvloop
async def test_every_attempt_has_parameters_of_its_own() -> None:
    numbers = iter(range(100))

    async def numbered(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await prefill_reply(f'{{"remote_block_ids":[{next(numbers)}]}}')(asked, writer)

    async with cluster(prefill_0=numbered, decode_0=hang_up(), decode_1=reply("boom", 500)) as c:
        assert (await c.router.ask()).status_code >= 500
        bodies = [asked.body for name in ("decode_0", "decode_1") for asked in c[name].asked]
        assert len(bodies) >= 2
        assert len(set(bodies)) == len(bodies)


@on_uvloop
async def test_a_pooled_connection_that_closes_gets_no_old_parameters() -> None:
    """The body with KV parameters is written once; the same worker is asked again after a new prefill leg."""
    answers: list[Script] = [GOOD, hang_up(), GOOD]

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await answers.pop(0)(asked, writer)

    async with cluster(prefill_0=prefill_reply(), decode_0=script) as c:
        assert (await c.router.ask()).status_code == 200
        assert (await c.router.ask()).status_code == 200
        assert c.asked("prefill_0", "decode_0") == [3, 3]
        assert await c.metric('dynctl_retries_total{leg="decode",reason="stale"} 1.0')


@on_uvloop
async def test_an_outage_does_not_double_the_load() -> None:
    retries = RetryLimits(ratio=0.2, burst=2)
    async with cluster(retries=retries, decode_0=reply("no", 500), decode_1=reply("no", 500)) as c:
        answers = [await c.router.ask() for _ in range(50)]
        assert sum(c.asked("decode_0", "decode_1")) <= 50 + 2 + 0.2 * 50 + 1
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert all(answer.headers["retry-after"] for answer in refused)
        assert {answer.json()["error"]["code"] for answer in refused} == {"retry_budget"}
        assert await c.metric(f"dynctl_retry_budget_exhausted_total {len(refused)}.0")


@on_uvloop
async def test_a_lost_prefill_pool_fails_nothing_even_without_a_budget() -> None:
    retries = RetryLimits(ratio=0, burst=0)
    async with cluster(retries=retries, prefill_0=silent(), prefill_1=silent(), decode_0=GOOD) as c:
        asking = [asyncio.create_task(c.router.ask()) for _ in range(20)]
        await until(lambda: sum(c.asked("prefill_0", "prefill_1")) == 20)
        await c["prefill_0"].stop()
        c.say(prefill_0="down")
        await c["prefill_1"].stop()
        c.say(prefill_1="down")
        answers = await asyncio.wait_for(asyncio.gather(*asking), 20)
        assert {answer.content for answer in answers} == {text_event("x") + DONE}
