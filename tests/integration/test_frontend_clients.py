"""Clients that leave, read slowly, upload in chunks or send several requests at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from frontend_harness import BODY, on_uvloop, until
from pair_harness import DONE, pair
from stub_engine import STREAM_HEAD, Asked, chunk, silent, text_event


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
