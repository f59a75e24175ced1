"""Legs that stand still or do not begin: what is given up, and what only seems to stand still."""

from __future__ import annotations

import asyncio

import pytest
from cluster_harness import GOOD, WHOLE, begun_then_silent, cluster, error_in
from frontend_harness import BODY, on_uvloop
from stub_engine import STREAM_HEAD, Asked, chunk, prefill_reply, reply, silent, text_event

from dynctl.frontend.watch import Timeouts


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
