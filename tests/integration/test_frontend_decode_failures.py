"""Decode legs that fail: before the answer, in its middle, and over a KV cache that was lost."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from frontend_harness import on_uvloop
from pair_harness import DONE, OPENAI_ERROR, error_of, pair
from stub_engine import STREAM_HEAD, Asked, Script, StubEngine, event, hang_up, prefill_reply, reply, stream, text_event


@on_uvloop
async def test_no_decode_worker_is_down_and_said() -> None:
    async with pair() as (router, prefill, decode):
        router.table(prefill_0=prefill.url, decode_0=f"proving@{decode.url}")
        answer = await router.ask()
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "no decode worker is ready" in str(error_of(answer)["message"])
        health = await router.http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "down")
        assert (await router.http.get("/live")).status_code == 200
        assert prefill.asked == []


@on_uvloop
async def test_errors_of_the_decode_engine_keep_their_status_and_shape() -> None:
    async with pair(decode=reply(OPENAI_ERROR, 400)) as (router, _, decode):
        answer = await router.ask()
        assert (answer.status_code, answer.content) == (400, OPENAI_ERROR)
        decode.script = reply("Internal Server Error", 500, "text/plain")
        answer = await router.ask()
        assert answer.status_code == 500
        assert "decode-0" in str(error_of(answer)["message"])
        decode.script = reply(OPENAI_ERROR, 429, extra="retry-after: 7\r\n")
        answer = await router.ask()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@on_uvloop
async def test_a_vanished_decode_is_502() -> None:
    async with pair(decode=hang_up()) as (router, _, decode):
        answer = await router.ask()
        assert answer.status_code == 502
        assert "decode-0" in str(error_of(answer)["message"])
        await decode.stop()
        answer = await router.ask()
        assert answer.status_code == 502
        assert error_of(answer)["code"] == "worker_unreachable"


async def head_then_gone(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM_HEAD)
    await writer.drain()
    writer.close()


@on_uvloop
@pytest.mark.parametrize("script", [hang_up(), head_then_gone], ids=["at once", "after its head"])
async def test_a_vanished_decode_is_replaced_and_prefill_done_again(script: Script) -> None:
    async with pair(decode=script) as (router, prefill, decode), StubEngine(stream(text_event("x"), DONE)) as other:
        router.table(prefill_0=prefill.url, decode_0=decode.url, decode_1=other.url)
        answer = await router.ask()
        assert answer.content == text_event("x") + DONE
        assert (len(prefill.asked), len(decode.asked), len(other.asked)) == (2, 1, 1)
        record = await router.record()
        assert (record.decode, record.status, record.error) == ("decode-1", 200, None)
        assert len({asked.headers["x-request-id"] for asked in prefill.asked}) == 1


@on_uvloop
async def test_a_stream_that_breaks_off_ends_with_an_error_event() -> None:
    broken = stream(text_event("he"), end=False)
    async with pair(decode=broken) as (router, _, decode):
        answer = await router.ask()
        assert answer.status_code == 200
        first, last, rest = answer.content.split(b"\n\n")
        assert (first + b"\n\n", rest) == (text_event("he"), b"")
        error = json.loads(last.removeprefix(b"data: "))["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert "decode-0" in error["message"]
        record = await router.record()
        assert record.status == 200
        assert record.error is not None
        decode.script = stream(b'data: {"choices":[{"te', end=False)
        answer = await router.ask()
        assert b'te\n\ndata: {"error"' in answer.content


@on_uvloop
async def test_an_answer_cut_in_the_middle_is_not_passed_off_as_whole() -> None:
    async def cut(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()

    async with pair(decode=cut) as (router, _, _d):
        with pytest.raises(httpx.RemoteProtocolError):
            await router.ask(b'{"prompt":"a"}')
        assert (await router.record()).error is not None


@on_uvloop
async def test_an_error_event_of_the_engine_passes_and_is_recorded() -> None:
    failed = event({"error": {"message": "KV load failed", "type": "x", "param": None, "code": 500}})
    async with pair(decode=stream(failed, DONE)) as (router, _, _d):
        answer = await router.ask()
        assert answer.content == failed + DONE
        record = await router.record()
        assert "KV load failed" in (record.error or "")
        assert record.ttft_ms is None


def without_the_kv(failure: Script) -> Script:
    """A decode that fails over whatever was handed over, and computes the rest itself."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        alone = "kv_transfer_params" not in asked.json()
        await (stream(text_event("x"), DONE) if alone else failure)(asked, writer)

    return script


KV_LOST = event({"error": {"message": "KV load failed", "type": "InternalServerError", "param": None, "code": 500}})


@on_uvloop
@pytest.mark.parametrize("failure", [reply("boom", 500), stream(KV_LOST, DONE)], ids=["500", "event"])
async def test_a_kv_cache_that_died_with_its_prefill_is_computed_again(failure: Script) -> None:
    """The second prefill worker serves the second attempt; with none left decode does, and it is counted."""
    async with pair(decode=without_the_kv(failure)) as (router, prefill, decode):
        answer = await router.ask()
        assert answer.content == text_event("x") + DONE
        assert (len(prefill.asked), len(decode.asked)) == (1, 2)
        record = await router.record()
        assert (record.mode, record.prefill, record.status, record.error) == ("decode-only", None, 200, None)
        metrics = (await router.http.get("/metrics")).text
        assert 'dynctl_degraded_requests_total{reason="handover_failed"} 1.0' in metrics


@on_uvloop
async def test_a_failure_in_a_stream_that_has_begun_is_the_clients_to_see() -> None:
    async with pair(decode=without_the_kv(stream(text_event("x"), KV_LOST))) as (router, _, decode):
        assert (await router.ask()).content == text_event("x") + KV_LOST
        assert len(decode.asked) == 1


@on_uvloop
async def test_a_lost_kv_cache_is_computed_by_another_prefill() -> None:
    first_fails = [reply("boom", 500), stream(text_event("x"), DONE)]

    async def decode_script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await first_fails.pop(0)(asked, writer)

    async with pair(decode=decode_script) as (router, prefill, decode), StubEngine(prefill_reply()) as other:
        router.table(prefill_0=prefill.url, prefill_1=other.url, decode_0=decode.url)
        assert (await router.ask()).status_code == 200
        assert (len(prefill.asked), len(other.asked), len(decode.asked)) == (1, 1, 2)
        record = await router.record()
        assert (record.mode, record.status, record.error) == ("disaggregated", 200, None)
