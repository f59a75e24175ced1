"""A server whose answers a test writes byte by byte: `play(reply)` runs one in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from types import TracebackType

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
DONE = b"data: [DONE]\n\n"
Writer = asyncio.StreamWriter


def token(text: str = " word") -> bytes:
    """An event with content."""
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


def usage(prompt: int, completion: int) -> bytes:
    """The event before the last."""
    return b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n' % (prompt, completion)


async def send(writer: Writer, data: bytes) -> float:
    """One HTTP chunk, written at once; when."""
    at = time.perf_counter()
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
    await writer.drain()
    return at


async def end(writer: Writer) -> None:
    """The last HTTP chunk."""
    writer.write(b"0\r\n\r\n")
    await writer.drain()


class Mock:
    """Answers POSTs with `reply(writer, number)`, numbers from 0. `url` is where."""

    def __init__(self, reply: Callable[[Writer, int], Awaitable[None]]) -> None:
        self._reply = reply
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.bodies: list[bytes] = []
        self.connections = 0

    def __enter__(self) -> Mock:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = listening.result(10)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def close_now(self) -> None:
        """The listener goes away; nobody can connect any more."""
        self._loop.call_soon_threadsafe(self._server.close)

    async def _close(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = head.lower().split(b"content-length:")
                self.bodies.append(
                    await reader.readexactly(int(fields[1].split(b"\r\n")[0])) if len(fields) > 1 else b""
                )
                await self._reply(writer, len(self.bodies) - 1)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
