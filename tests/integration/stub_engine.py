"""A tiny scripted upstream: raw asyncio, replies with the bytes it is told to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

PARAMS = (
    '{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1,2]],"remote_engine_id":"e-1",'
    '"remote_request_id":"cmpl-x","remote_host":"127.0.0.1","remote_port":5600,"tp_size":1,"extra": 1.50}'
)
"""As an engine would write it: spaces and digits that a re-encoding would not keep."""


@dataclass
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the peer closes while the reply is under way."""

    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[Asked, asyncio.StreamWriter], Awaitable[None]]


def reply(body: bytes | str, status: int = 200, kind: str = "application/json", extra: str = "") -> Script:
    """A whole answer with its length."""
    data = body.encode() if isinstance(body, str) else body

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n{extra}\r\n"
        writer.write(head.encode() + data)

    return script


def prefill_reply(params: str = PARAMS, delay_s: float = 0.0) -> Script:
    """What a prefill worker answers."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_s)
        body = '{"id":"cmpl-1","choices":[{"text":"a","token_ids":[5]}],"kv_transfer_params":' + params + "}"
        await reply(body)(asked, writer)

    return script


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def text_event(text: str) -> bytes:
    return event({"choices": [{"index": 0, "text": text}]})


def stream(*events: bytes, first_delay_s: float = 0.0, end: bool = True) -> Script:
    """A stream of the given events; `end=False` closes without the last chunk."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        await asyncio.sleep(first_delay_s)
        for item in events:
            writer.write(chunk(item))
            await writer.drain()
            await asyncio.sleep(0)
        if end:
            writer.write(b"0\r\n\r\n")
        else:
            writer.close()

    return script


def silent() -> Script:
    """Answers nothing until the peer leaves."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asked.left.wait()

    return script


def hang_up() -> Script:
    """Closes without a word."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.close()

    return script


class StubEngine:
    """`script` decides every answer but `/health`'s; change it between requests. `asked` holds the requests."""

    def __init__(self, script: Script, *, health: Script | None = None) -> None:
        self.script = script
        self.health = health or reply("")
        self.asked: list[Asked] = []
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> StubEngine:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is not None:
            self._server.close()
            for writer in tuple(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            async with asyncio.timeout(10):
                while self._writers:
                    await asyncio.sleep(0.001)
            self._server = None

    def close_connections(self) -> None:
        """Close those that there are, and go on listening."""
        for writer in tuple(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        asked = Asked(method, target, headers, body)
        if target == "/health":
            await self.health(asked, writer)
            return True
        self.asked.append(asked)
        watcher = asyncio.create_task(reader.read(1))
        watcher.add_done_callback(lambda done: asked.left.set())
        try:
            await self.script(asked, writer)
            if writer.is_closing():
                return False
            await writer.drain()
        finally:
            gone = watcher.done()
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        return not gone
