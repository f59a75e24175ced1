"""Requests that go well: what each leg is asked, the answer, and the split of its time."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import pytest
from frontend_harness import BODY, Router, on_uvloop, until
from pair_harness import DONE, ROLE, pair
from stub_engine import PARAMS, STREAM_HEAD, Asked, Script, StubEngine, chunk, prefill_reply, reply, stream, text_event

from dynctl.frontend.legs import Handover


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
