"""The fuzzer's engines: they answer as they should, or anything."""

from __future__ import annotations

import asyncio
import random

from stub_engine import STREAM_HEAD, Asked, chunk, prefill_reply, reply, text_event

DONE = b"data: [DONE]\n\n"


class Wild:
    """An engine that answers anything. With `sound` it answers as it should."""

    def __init__(self, seed: int, *, prefill: bool) -> None:
        self.random = random.Random(seed)
        self._prefill = prefill

    async def __call__(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        r = self.random
        if r.random() < 0.6:
            await self._sound(asked, writer)
            return
        junk = bytes(r.randrange(256) for _ in range(r.randrange(1, 300)))
        kind = r.randrange(8)
        if kind == 0:
            writer.close()
        elif kind == 1:
            await reply(junk, status=r.choice((200, 400, 418, 429, 500, 503, 504)))(asked, writer)
        elif kind == 2:
            writer.write(junk)
            writer.close()
        elif kind == 3:
            writer.write(STREAM_HEAD + chunk(text_event("a")) + junk)
            writer.close()
        elif kind == 4:
            writer.write(STREAM_HEAD + chunk(b'data: {"error":{"message":"no"}}\n\n') + b"0\r\n\r\n")
        elif kind == 5:
            await reply("[1]" if r.random() < 0.5 else '{"kv_transfer_params":[[[1]]]}')(asked, writer)
        elif kind == 6:
            writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\ncontent-length: 0\r\n\r\n")
        else:
            writer.write(STREAM_HEAD + b"".join(chunk(text_event("b" * 5000)) for _ in range(100)))
            writer.close()

    async def _sound(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if self._prefill:
            await prefill_reply()(asked, writer)
        elif b'"stream": true' in asked.body or b'"stream":true' in asked.body:
            events = b"".join(chunk(text_event("a")) for _ in range(self.random.randrange(20)))
            writer.write(STREAM_HEAD + events + chunk(DONE) + b"0\r\n\r\n")
        else:
            await reply('{"choices":[{"text":"a"}]}')(asked, writer)
