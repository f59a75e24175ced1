"""Traffic follows health: legs that fail or stand still, workers that change state, retries and their budget."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from frontend_harness import BODY, Router, on_uvloop, until
from stub_engine import (
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

from dynctl.frontend.retry import RetryLimits
from dynctl.frontend.watch import Timeouts

DONE = b"data: [DONE]\n\n"
GOOD = stream(text_event("x"), DONE)
WHOLE = b'{"prompt":"hi","max_tokens":5}'


class Cluster:
    """A router over engines by id; `state` changes what the table says of them."""

    def __init__(self, router: Router, engines: dict[str, StubEngine]) -> None:
        self.router = router
        self.engines = engines
        self.states = dict.fromkeys(engines, "ready")

    def __getitem__(self, name: str) -> StubEngine:
        return self.engines[name]

    def say(self, **states: str) -> None:
        self.states.update(states)
        self.router.table(**{name: f"{self.states[name]}@{engine.url}" for name, engine in self.engines.items()})

    def asked(self, *names: str) -> list[int]:
        return [len(self.engines[name].asked) for name in names]

    async def metric(self, line: str) -> bool:
        return line in (await self.router.http.get("/metrics")).text


@asynccontextmanager
async def cluster(
    timeouts: Timeouts | None = None, retries: RetryLimits | None = None, **scripts: Script
) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(StubEngine(script)) for name, script in scripts.items()}
        router = await stack.enter_async_context(Router(timeouts=timeouts, retries=retries))
        made = Cluster(router, engines)
        made.say()
        yield made


def begun_then_silent() -> Script:
    """One chunk, and then nothing until the peer leaves."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(text_event("a")))
        await asked.left.wait()

    return script


async def read_on(c: Cluster, began: asyncio.Event) -> bytes:
    """A whole streamed answer; `began` is set with its first bytes."""
    content = b""
    async with c.router.http.stream("POST", "/v1/completions", content=BODY) as answer:
        async for piece in answer.aiter_bytes():
            content += piece
            began.set()
    return content


def error_in(content: bytes) -> dict[str, object]:
    """The error of a stream's last event, its shape checked."""
    last = content.removesuffix(b"\n\n").split(b"\n\n")[-1]
    error: dict[str, object] = json.loads(last.removeprefix(b"data: "))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


@on_uvloop
async def test_a_stream_that_stands_still_ends_with_an_error() -> None:
    timeouts = Timeouts(stall_s=0.2)
    async with cluster(timeouts, prefill_0=prefill_reply(), decode_0=begun_then_silent()) as c:
        answer = await c.router.ask()
        assert answer.status_code == 200
        assert answer.content.startswith(text_event("a"))
        assert error_in(answer.content)["code"] == "worker_stalled"
        await asyncio.wait_for(c["decode_0"].asked[0].left.wait(), 20)  # the engine is told to drop it
        assert "nothing more came within 0.2 s" in ((await c.router.record()).error or "")


@on_uvloop
async def test_a_client_that_reads_slowly_is_not_a_stalled_worker() -> None:
    async def flood(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(400):
            writer.write(chunk(text_event("x" * 100_000)))
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with cluster(Timeouts(stall_s=0.1), decode_0=flood) as c:
        reader, writer = await asyncio.open_connection("127.0.0.1", c.router.port, limit=1000)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        got = len(await reader.read(1000))
        await asyncio.sleep(0.6)  # several stall deadlines long
        tail = b""
        while not tail.endswith(b"0\r\n\r\n"):
            data = await asyncio.wait_for(reader.read(1_000_000), 20)
            assert data
            got += len(data)
            tail = (tail + data)[-10:]
        assert got > 40_000_000
        writer.close()


@on_uvloop
@pytest.mark.parametrize("body", [BODY, WHOLE], ids=["streamed", "whole"])
async def test_a_decode_that_does_not_begin_in_time_is_replaced(body: bytes) -> None:
    answers = GOOD if body is BODY else reply("{}")
    timeouts = Timeouts(first_s=0.2, whole_s=0.2)
    async with cluster(timeouts, prefill_0=prefill_reply(), decode_0=silent(), decode_1=answers) as c:
        assert (await c.router.ask(body)).status_code == 200
        assert c.asked("prefill_0", "decode_0", "decode_1") == [2, 1, 1]
        assert await c.metric('dynctl_retries_total{leg="decode",reason="timeout"} 1.0')


@on_uvloop
async def test_a_prefill_reply_that_never_ends_is_given_up() -> None:
    async def half(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"id"')
        await asked.left.wait()

    async with cluster(Timeouts(prefill_s=0.2), prefill_0=half, decode_0=GOOD) as c:
        assert (await c.router.ask()).status_code == 200
        assert c["decode_0"].asked[0].body == BODY


@on_uvloop
@pytest.mark.parametrize("state", ["unhealthy", "down"])
@pytest.mark.parametrize("body", [BODY, WHOLE], ids=["streamed", "whole"])
async def test_what_a_worker_has_not_begun_moves_when_it_goes_out(state: str, body: bytes) -> None:
    answers = GOOD if body is BODY else reply("{}")
    async with cluster(prefill_0=prefill_reply(), decode_0=silent(), decode_1=silent()) as c:
        asking = asyncio.create_task(c.router.ask(body))
        await until(lambda: sum(c.asked("decode_0", "decode_1")) == 1)
        stuck, other = ("decode_0", "decode_1") if c["decode_0"].asked else ("decode_1", "decode_0")
        c[other].script = answers
        c.say(**{stuck: state})
        assert (await asyncio.wait_for(asking, 20)).status_code == 200
        assert c.asked("prefill_0", other) == [2, 1]  # a new prefill leg: the old parameters are not used again
        assert await c.metric('dynctl_retries_total{leg="decode",reason="withdrawn"} 1.0')


@on_uvloop
@pytest.mark.parametrize("body", [BODY, WHOLE], ids=["streamed", "whole"])
async def test_what_waits_for_kv_of_a_lost_node_is_served_by_decode_alone(body: bytes) -> None:
    async with cluster(Timeouts(kv_s=0.2), prefill_0=prefill_reply(), decode_0=silent()) as c:
        asking = asyncio.create_task(c.router.ask(body))
        await until(lambda: c.asked("decode_0") == [1])
        c["decode_0"].script = GOOD if body is BODY else reply("{}")
        c.say(prefill_0="lost")
        assert (await asyncio.wait_for(asking, 20)).status_code == 200
        assert c.asked("prefill_0", "decode_0") == [1, 2]
        assert c["decode_0"].asked[1].body == body
        assert await c.metric('dynctl_retries_total{leg="decode",reason="kv_lost"} 1.0')


@on_uvloop
async def test_an_answer_that_has_begun_needs_no_kv_of_a_lost_node() -> None:
    go_on = asyncio.Event()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(text_event("a")))
        await go_on.wait()
        writer.write(chunk(DONE) + b"0\r\n\r\n")

    async with cluster(Timeouts(kv_s=0.2), prefill_0=prefill_reply(), decode_0=slow) as c:
        began = asyncio.Event()
        reading = asyncio.create_task(read_on(c, began))
        await asyncio.wait_for(began.wait(), 20)
        c["decode_0"].script = silent()
        waiting = asyncio.create_task(c.router.ask(WHOLE))
        await until(lambda: c.asked("decode_0") == [2])
        c["decode_0"].script = reply("{}")
        c.say(prefill_0="lost")
        assert (await asyncio.wait_for(waiting, 20)).status_code == 200
        go_on.set()
        assert (await asyncio.wait_for(reading, 20)).endswith(DONE)
        assert c.asked("decode_0") == [3]


@on_uvloop
async def test_a_worker_that_is_only_unhealthy_keeps_what_nobody_else_could_serve() -> None:
    finish = asyncio.Event()

    async def late(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await finish.wait()
        await GOOD(asked, writer)

    async with cluster(decode_0=late) as c:
        asking = asyncio.create_task(c.router.ask())
        await until(lambda: c.asked("decode_0") == [1])
        c.say(decode_0="unhealthy")
        assert (await c.router.ask()).status_code == 503  # nothing new goes there
        finish.set()
        assert (await asyncio.wait_for(asking, 20)).status_code == 200


@on_uvloop
async def test_a_draining_worker_ends_what_it_has_and_gets_nothing_new() -> None:
    go_on = asyncio.Event()

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(text_event("a")))
        await go_on.wait()
        writer.write(chunk(text_event("b")) + chunk(DONE) + b"0\r\n\r\n")

    async with cluster(decode_0=slow, decode_1=slow) as c:
        asking = [asyncio.create_task(c.router.ask()) for _ in range(2)]
        await until(lambda: c.asked("decode_0", "decode_1") == [1, 1])
        c.say(decode_0="draining")
        c["decode_1"].script = GOOD
        for _ in range(3):
            assert (await c.router.ask()).status_code == 200
        go_on.set()
        for answer in await asyncio.gather(*asking):
            assert answer.content == text_event("a") + text_event("b") + DONE
        assert c.asked("decode_0", "decode_1") == [1, 4]


@on_uvloop
async def test_a_dead_worker_whose_connection_stays_open_ends_its_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynctl.frontend.watch._DOWN_GRACE_S", 0.2)
    timeouts = Timeouts(first_s=1.0)  # sweeps often enough
    async with cluster(timeouts, decode_0=begun_then_silent()) as c:
        began = asyncio.Event()
        reading = asyncio.create_task(read_on(c, began))
        await asyncio.wait_for(began.wait(), 20)
        c.say(decode_0="down")
        assert error_in(await asyncio.wait_for(reading, 20))["type"] == "server_error"


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


@on_uvloop
async def test_with_one_of_two_decodes_killed_only_begun_streams_fail() -> None:
    async with cluster(prefill_0=prefill_reply(), decode_0=silent(), decode_1=GOOD) as c:
        c.say(decode_1="draining")  # everything to the one that will die
        waiting = [asyncio.create_task(c.router.ask(body)) for body in [BODY, BODY, BODY]]
        await until(lambda: c.asked("decode_0") == [3])
        c["decode_0"].script = begun_then_silent()
        began = asyncio.Event()
        reading = asyncio.create_task(read_on(c, began))
        await asyncio.wait_for(began.wait(), 20)
        c.say(decode_1="ready")
        await c["decode_0"].stop()
        c.say(decode_0="down")
        for answer in await asyncio.wait_for(asyncio.gather(*waiting), 20):
            assert answer.content == text_event("x") + DONE
        assert error_in(await asyncio.wait_for(reading, 20))["code"] == "worker_lost"
