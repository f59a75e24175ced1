"""Traffic follows health: workers go unhealthy, drain, are lost with their node or die under requests."""

from __future__ import annotations

import asyncio

import pytest
from cluster_harness import DONE, GOOD, WHOLE, begun_then_silent, cluster, error_in, read_on
from frontend_harness import BODY, on_uvloop, until
from stub_engine import STREAM_HEAD, Asked, chunk, prefill_reply, reply, silent, text_event

from dynctl.frontend.watch import Timeouts


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
