"""Prefill legs that fail: another worker is tried, then decode serves alone."""

from __future__ import annotations

import asyncio

import pytest
from frontend_harness import BODY, Router, on_uvloop, until
from pair_harness import OPENAI_ERROR, error_of, pair
from stub_engine import Script, StubEngine, hang_up, prefill_reply, reply, silent

from dynctl.frontend.watch import Timeouts


@on_uvloop
async def test_an_error_of_the_prefill_engine_is_passed_on_with_its_status() -> None:
    async with pair(prefill=reply(OPENAI_ERROR, 400)) as (router, _, decode):
        answer = await router.ask()
        assert (answer.status_code, answer.content) == (400, OPENAI_ERROR)
        assert answer.headers["x-request-id"]
        assert decode.asked == []


@on_uvloop
async def test_a_plain_error_of_the_prefill_engine_gets_openais_shape() -> None:
    async with pair(prefill=reply("model not found\n", 404, "text/plain")) as (router, _, _d):
        answer = await router.ask()
        assert answer.status_code == 404
        assert "model not found" in str(error_of(answer)["message"])
        assert "prefill-0" in str(error_of(answer)["message"])


@on_uvloop
@pytest.mark.parametrize(
    "script", [hang_up(), reply("boom", 500), reply("<html>", 200)], ids=["gone", "500", "no JSON"]
)
async def test_a_failed_prefill_is_tried_on_another(script: Script) -> None:
    async with pair(prefill=script) as (router, prefill, decode), StubEngine(prefill_reply()) as other:
        router.table(prefill_0=prefill.url, prefill_1=other.url, decode_0=decode.url)
        for count in (1, 2, 3, 4):
            answer = await router.ask()
            assert answer.status_code == 200
            record = await router.record(count)
            assert (record.mode, record.prefill) == ("disaggregated", "prefill-1")
        assert len(prefill.asked) == 1  # avoided after its failure
        assert len(other.asked) == 4


@on_uvloop
@pytest.mark.parametrize("script", [hang_up(), reply("boom", 500)], ids=["gone", "500"])
async def test_without_another_prefill_decode_serves_alone(script: Script) -> None:
    async with pair(prefill=script) as (router, _, decode):
        answer = await router.ask()
        assert answer.status_code == 200
        assert decode.asked[0].body == BODY
        record = await router.record()
        assert (record.mode, record.prefill, record.status) == ("decode-only", None, 200)
        metrics = (await router.http.get("/metrics")).text
        assert 'dynctl_degraded_requests_total{reason="prefill_failed"} 1.0' in metrics


@on_uvloop
async def test_a_hung_prefill_is_given_up_after_its_time() -> None:
    router = Router(timeouts=Timeouts(prefill_s=0.1))
    async with pair(prefill=silent(), router=router) as (_, prefill, _d):
        assert (await router.ask()).status_code == 200
        await asyncio.wait_for(prefill.asked[0].left.wait(), 20)
        assert (await router.record()).mode == "decode-only"


@on_uvloop
async def test_a_prefill_that_goes_out_of_service_is_not_waited_for() -> None:
    async with pair(prefill=silent()) as (router, prefill, decode):
        asking = asyncio.create_task(router.ask())
        await until(lambda: bool(prefill.asked))
        router.table(prefill_0=f"down@{prefill.url}", decode_0=decode.url)
        assert (await asyncio.wait_for(asking, 20)).status_code == 200
        assert (await router.record()).mode == "decode-only"


@on_uvloop
async def test_a_prompt_that_ends_with_its_first_token_is_served_by_decode() -> None:
    async with pair(prefill=prefill_reply("null")) as (router, _, decode):
        assert (await router.ask()).status_code == 200
        assert decode.asked[0].body == BODY
        assert (await router.record()).mode == "decode-only"


@on_uvloop
async def test_no_prefill_worker_is_degraded_and_said() -> None:
    async with pair() as (router, prefill, decode):
        assert (await router.http.get("/health")).json()["status"] == "ok"
        router.table(prefill_0=f"down@{prefill.url}", decode_0=decode.url)
        assert (await router.ask()).status_code == 200
        assert prefill.asked == []
        health = await router.http.get("/health")
        assert health.status_code == 200
        assert health.json() == {
            "status": "degraded",
            "reason": "no prefill worker is ready: decode serves alone",
            "workers": {"prefill": {"ready": 0, "expected": 0}, "decode": {"ready": 1, "expected": 1}},
        }
        assert "dynctl_degraded 1.0" in (await router.http.get("/metrics")).text
