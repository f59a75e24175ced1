"""The router between a client and scripted engines: both legs, streams, errors at each stage, degraded modes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import httpx
import pytest
from frontend_harness import BODY, TOKEN, Router, on_uvloop, until
from stub_engine import (
    PARAMS,
    STREAM_HEAD,
    Asked,
    Script,
    StubEngine,
    chunk,
    event,
    hang_up,
    prefill_reply,
    reply,
    silent,
    stream,
    text_event,
)

from dynctl.frontend.legs import Handover
from dynctl.frontend.watch import Timeouts

DONE = b"data: [DONE]\n\n"
ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
OPENAI_ERROR = b'{"error": {"message": "too long", "type": "BadRequestError", "param": null, "code": 400}}'


@asynccontextmanager
async def pair(
    prefill: Script | None = None, decode: Script | None = None, router: Router | None = None
) -> AsyncIterator[tuple[Router, StubEngine, StubEngine]]:
    """A router over one prefill and one decode engine."""
    async with (
        StubEngine(prefill or prefill_reply()) as p,
        StubEngine(decode or stream(text_event("he"), text_event("llo"), DONE)) as d,
        router or Router() as r,
    ):
        r.table(prefill_0=p.url, decode_0=d.url)
        yield r, p, d


def error_of(response: httpx.Response) -> dict[str, object]:
    """The error member, its shape checked."""
    assert response.headers["content-type"] == "application/json"
    document = response.json()
    assert set(document["error"]) == {"message", "type", "param", "code"}
    error: dict[str, object] = document["error"]
    return error


@on_uvloop
async def test_both_legs_are_exactly_what_the_protocol_says() -> None:
    body = (
        b'{ "model":"m", "prompt":"h\xc3\xa9", "stream":true, "stream_options":{"include_usage":true},\n'
        b' "max_tokens":7, "min_tokens":3, "temperature":0.50 }'
    )
    async with pair() as (router, prefill, decode):
        answer = await router.ask(
            body,
            headers={"X-Request-Id": "mine-1", "Authorization": "Bearer s", "Cookie": "c=1", "traceparent": "00-1-2-3"},
        )
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-request-id"] == "mine-1"
        assert answer.content == text_event("he") + text_event("llo") + DONE
        (one,), (two,) = prefill.asked, decode.asked
        assert (one.method, one.target) == ("POST", "/v1/completions")
        assert one.json() == {
            "model": "m",
            "prompt": "hé",
            "temperature": 0.5,
            "max_tokens": 1,
            "stream": False,
            "kv_transfer_params": {
                "do_remote_decode": True,
                "do_remote_prefill": False,
                "remote_engine_id": None,
                "remote_block_ids": None,
                "remote_host": None,
                "remote_port": None,
            },
        }
        assert two.body == body.rstrip()[:-1].rstrip() + b',"kv_transfer_params":' + PARAMS.encode() + b"}"
        for leg in (one, two):
            assert leg.headers["x-request-id"] == "mine-1"
            assert leg.headers["traceparent"] == "00-1-2-3"
            assert "authorization" not in leg.headers
            assert "cookie" not in leg.headers
        record = await router.record()
        assert (record.id, record.mode, record.prefill, record.decode) == (
            "mine-1",
            "disaggregated",
            "prefill-0",
            "decode-0",
        )
        assert (record.status, record.streamed, record.error) == (200, True, None)


@on_uvloop
async def test_a_request_id_is_made_when_the_client_has_none() -> None:
    async with pair() as (router, prefill, decode):
        answer = await router.ask()
        made = answer.headers["x-request-id"]
        assert len(made) == 32
        assert prefill.asked[0].headers["x-request-id"] == decode.asked[0].headers["x-request-id"] == made


@on_uvloop
async def test_an_answer_that_is_not_streamed() -> None:
    whole = b'{"choices":[{"text":"hello"}],"usage":{"completion_tokens":5}}'
    async with pair(decode=reply(whole, extra="server: uvicorn\r\n")) as (router, _, _d):
        answer = await router.ask(b'{"prompt":"hi"}')
        assert (answer.status_code, answer.content) == (200, whole)
        assert answer.headers["content-length"] == str(len(whole))
        record = await router.record()
        assert (record.streamed, record.ttft_ms) == (False, None)
        assert record.total_ms > 0


def timed(script: Script, took_ms: dict[str, float]) -> Script:
    """The script, and how long each request really took in it: on a busy machine a sleep may be late."""

    async def run(asked: Asked, writer: asyncio.StreamWriter) -> None:
        came = time.perf_counter()
        await script(asked, writer)
        took_ms[asked.headers["x-request-id"]] = (time.perf_counter() - came) * 1000

    return run


@on_uvloop
@pytest.mark.parametrize(("prefill_s", "decode_s"), [(0.5, 0.2), (0.2, 0.5)])
async def test_delays_in_the_legs_are_found_again_in_the_split(prefill_s: float, decode_s: float) -> None:
    first_ms: dict[str, float] = {}
    second_ms: dict[str, float] = {}
    prefill = timed(prefill_reply(delay_s=prefill_s), first_ms)
    decode = timed(stream(ROLE, text_event("a"), DONE, first_delay_s=decode_s), second_ms)
    async with pair(prefill, decode) as (router, _, _d):
        await asyncio.gather(*(router.ask() for _ in range(5)))
        await until(lambda: len(router.records) == 5)
        for record in router.records:
            assert record.queue_ms is not None
            assert record.prefill_ms is not None
            assert record.handover_ms is not None
            assert record.queue_ms + record.prefill_ms + record.handover_ms == record.ttft_ms
        assert median((r.prefill_ms or 0) / first_ms[r.id] for r in router.records) == pytest.approx(1, rel=0.25)
        assert median((r.handover_ms or 0) / second_ms[r.id] for r in router.records) == pytest.approx(1, rel=0.25)
        assert min(first_ms.values()) >= prefill_s * 1000 - 2
        assert min(second_ms.values()) >= decode_s * 1000 - 2


@on_uvloop
async def test_the_role_chunk_is_not_the_first_content() -> None:
    async def slow_after_role(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(ROLE))
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(chunk(text_event("a")) + chunk(DONE) + b"0\r\n\r\n")

    async with pair(decode=slow_after_role) as (router, _, _d):
        await router.ask(path="/v1/chat/completions")
        record = await router.record()
        assert record.handover_ms is not None
        assert record.handover_ms >= 190


@on_uvloop
@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":["a","b"]}',
        b'{"prompt":"a","n":2}',
        b'{"prompt":"a","best_of":3}',
        b'{"prompt":"a","echo":true}',
        b'{"prompt":"a","prompt_logprobs":1}',
    ],
)
async def test_what_is_not_one_sequence_goes_to_decode_as_it_is(body: bytes) -> None:
    async with pair(decode=reply("{}")) as (router, prefill, decode):
        await router.ask(body)
        assert prefill.asked == []
        assert decode.asked[0].body == body
        assert (await router.record()).mode == "decode-only"


@on_uvloop
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b"\xff", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"prompt":"a","kv_transfer_params":{"do_remote_prefill":true}}', "reserved_field"),
    ],
)
async def test_bad_bodies_are_the_clients_error_and_reach_no_engine(body: bytes, code: str) -> None:
    async with pair() as (router, prefill, decode):
        answer = await router.ask(body)
        assert answer.status_code == 400
        assert error_of(answer)["code"] == code
        assert prefill.asked == decode.asked == []
        assert (await router.record()).status == 400


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


@on_uvloop
async def test_a_client_that_leaves_during_prefill_aborts_it() -> None:
    async with pair(prefill=silent()) as (router, prefill, decode):
        asking = asyncio.create_task(router.ask())
        await until(lambda: bool(prefill.asked))
        asking.cancel()
        await asyncio.wait_for(prefill.asked[0].left.wait(), 20)
        record = await router.record()
        assert (record.status, decode.asked) == (499, [])


@on_uvloop
async def test_a_client_that_leaves_during_decode_aborts_it() -> None:
    async def endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        while not asked.left.is_set():
            writer.write(chunk(text_event("a")))
            await writer.drain()
            await asyncio.sleep(0.001)

    async with pair(decode=endless) as (router, _, decode):
        async with router.http.stream("POST", "/v1/completions", content=BODY) as answer:
            async for _ in answer.aiter_raw():
                break
        await asyncio.wait_for(decode.asked[0].left.wait(), 20)
        record = await router.record()
        assert record.status == 499
        assert record.ttft_ms is not None
        await until(lambda: router.app.metrics.in_flight == 0)


@on_uvloop
async def test_a_slow_reader_holds_the_engine_back_and_memory_stays_bounded() -> None:
    written = 0

    async def flood(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(STREAM_HEAD)
        while not asked.left.is_set():
            writer.write(chunk(text_event("x" * 100_000)))
            await writer.drain()
            written += 100_000

    async with pair(decode=flood) as (router, _, decode):
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port, limit=1000)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        writer.write(head + BODY)
        await until(lambda: written > 0)
        before = -1
        while before != written:  # until neither side moves
            before = written
            await asyncio.sleep(0.2)
        assert written < 30_000_000  # socket buffers of four ends, and the router's own
        got = len(await reader.read(1000))
        while got < 40_000_000:
            got += len(await reader.read(1_000_000))
        assert written > before
        writer.transport.abort()
        await asyncio.wait_for(decode.asked[0].left.wait(), 20)


@on_uvloop
async def test_directed_requests_go_exactly_where_they_are_told() -> None:
    async with pair() as (router, prefill, decode):
        router.table(prefill_0=f"proving@{prefill.url}", decode_0=f"proving@{decode.url}")
        token = {"X-Dynctl-Token": TOKEN.decode()}
        answer = await router.ask(headers={**token, "X-Dynctl-Pair": "prefill-0>decode-0"})
        assert answer.status_code == 200
        record = await router.record()
        assert (record.directed, record.mode, record.prefill, record.decode) == (
            True,
            "disaggregated",
            "prefill-0",
            "decode-0",
        )
        assert record.ttft_ms is not None
        assert "dynctl_ttft_seconds_count{" not in (await router.http.get("/metrics")).text
        answer = await router.ask(headers={**token, "X-Dynctl-Pair": "decode-0"})
        assert answer.status_code == 200
        assert decode.asked[1].body == BODY
        assert (await router.record(2)).mode == "decode-only"
        assert "x-dynctl-token" not in decode.asked[1].headers


@on_uvloop
@pytest.mark.parametrize("token", [None, "wrong", ""])
async def test_directed_requests_need_the_token(token: str | None) -> None:
    async with pair() as (router, prefill, decode):
        headers = {"X-Dynctl-Pair": "decode-0"} if token is None else {"X-Dynctl-Pair": "d", "X-Dynctl-Token": token}
        answer = await router.ask(headers=headers)
        assert answer.status_code == 403
        assert error_of(answer)["type"] == "permission_error"
        assert prefill.asked == decode.asked == []


@on_uvloop
async def test_directed_requests_know_no_fall_back() -> None:
    async with pair(prefill=reply("boom", 500)) as (router, prefill, decode):
        token = {"X-Dynctl-Token": TOKEN.decode()}
        directed = {**token, "X-Dynctl-Pair": "prefill-0>decode-0"}
        answer = await router.ask(headers=directed)
        assert answer.status_code == 500
        assert "prefill leg on prefill-0" in str(error_of(answer)["message"])
        assert decode.asked == []
        prefill.script = prefill_reply("null")
        answer = await router.ask(headers=directed)
        assert (answer.status_code, error_of(answer)["code"]) == (502, "no_handover")
        prefill.script, decode.script = prefill_reply(), hang_up()
        answer = await router.ask(headers=directed)
        assert answer.status_code == 502
        assert "decode leg on decode-0" in str(error_of(answer)["message"])
        answer = await router.ask(headers={**token, "X-Dynctl-Pair": "prefill-9>decode-0"})
        assert (answer.status_code, error_of(answer)["code"]) == (400, "no_such_worker")
        router.table(prefill_0=f"down@{prefill.url}", decode_0=decode.url)
        assert (await router.ask(headers=directed)).status_code == 503


@on_uvloop
async def test_aggregated_serving_has_one_leg() -> None:
    async with StubEngine(stream(ROLE, text_event("a"), DONE, first_delay_s=0.05)) as engine, Router() as router:
        router.table(worker_0=engine.url)
        assert (await router.http.get("/health")).json()["status"] == "ok"
        assert (await router.ask()).status_code == 200
        assert engine.asked[0].body == BODY
        record = await router.record()
        assert (record.mode, record.prefill, record.decode, record.handover_ms) == (
            "aggregated",
            None,
            "worker-0",
            None,
        )
        assert record.queue_ms is not None
        assert record.prefill_ms is not None
        assert record.queue_ms + record.prefill_ms == record.ttft_ms


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


@on_uvloop
async def test_everything_else_under_v1_is_passed_on() -> None:
    async with pair(decode=reply('{"data":[]}')) as (router, prefill, decode):
        assert (await router.http.get("/v1/models?x=1")).json() == {"data": []}
        assert (await router.ask(b"\x00\xff", "/v1/audio/transcriptions")).status_code == 200
        assert (await router.ask(b"{}", "/tokenize")).status_code == 200
        assert (await router.http.head("/v1/models")).headers["content-length"] == "11"
        seen = [(asked.method, asked.target) for asked in decode.asked]
        assert seen == [
            ("GET", "/v1/models?x=1"),
            ("POST", "/v1/audio/transcriptions"),
            ("POST", "/tokenize"),
            ("GET", "/v1/models"),
        ]
        assert decode.asked[1].body == b"\x00\xff"
        assert prefill.asked == []


@on_uvloop
@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/metrics/x", "/%761/models", "//v1/models", "/reset_prefix_cache", "/v1"]
)
async def test_what_is_not_there(path: str) -> None:
    async with pair() as (router, _, decode):
        answer = await router.http.get(router.url + path)
        assert answer.status_code == 404
        assert error_of(answer)["type"] == "not_found_error"
        assert decode.asked == []


@on_uvloop
async def test_methods() -> None:
    async with pair() as (router, _, _d):
        assert (await router.http.options("/v1/completions")).status_code == 204
        assert (await router.http.post("/health")).status_code == 405
        head = await router.http.head("/health")
        assert (head.status_code, head.content) == (200, b"")
        gzip = await router.ask(headers={"content-encoding": "gzip"})
        assert gzip.status_code == 415


@on_uvloop
async def test_api_keys_guard_the_engines() -> None:
    async with pair(router=Router(keys=(b"sk-1",))) as (router, _, decode):
        for path in ("/v1/completions", "/v1/models", "/tokenize"):
            answer = await router.ask(path=path)
            assert answer.status_code == 401
            assert error_of(answer)["code"] == "invalid_api_key"
        assert decode.asked == []
        assert (await router.ask(headers={"Authorization": "Bearer sk-1"})).status_code == 200
        directed = {"X-Dynctl-Token": TOKEN.decode(), "X-Dynctl-Pair": "decode-0"}
        assert (await router.ask(headers=directed)).status_code == 200
        assert (await router.http.get("/health")).status_code == 200


@on_uvloop
async def test_chunked_upload_and_pipelining() -> None:
    async with pair() as (router, prefill, decode):

        async def pieces() -> AsyncIterator[bytes]:
            yield BODY[:10]
            yield BODY[10:]

        assert (await router.http.post("/v1/completions", content=pieces())).status_code == 200
        assert decode.asked[0].body.startswith(BODY[:-1])
        reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        writer.write((head + BODY) * 3)
        got = b""
        while got.count(DONE) < 3:
            got += await asyncio.wait_for(reader.read(65536), 20)
        writer.close()
        assert (len(prefill.asked), len(decode.asked)) == (4, 4)


@on_uvloop
async def test_the_seam_between_the_legs_can_be_overridden() -> None:
    class Fixed(Handover):
        def decode_params(self, request_id: str, prefill_reply: bytes) -> bytes | None:
            params = super().decode_params(request_id, prefill_reply)
            return None if params is None else b'{"swapped":"' + request_id.encode() + b'"}'

    async with pair(router=Router(handover=Fixed())) as (router, _, decode):
        await router.ask(headers={"X-Request-Id": "r1"})
        assert decode.asked[0].json()["kv_transfer_params"] == {"swapped": "r1"}


@on_uvloop
async def test_many_streams_at_once_reuse_few_connections() -> None:
    async with pair() as (router, prefill, decode):
        for _ in range(3):
            answers = await asyncio.gather(*(router.ask() for _ in range(20)))
            assert all(answer.content.endswith(DONE) for answer in answers)
        assert prefill.connections <= 20
        assert decode.connections <= 20
        await router.record(60)
