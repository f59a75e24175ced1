"""The hand-over between two fake engines: JSON lines over TCP, on the port where vLLM has its ZMQ handshake.

Request: `{"engine", "request", "blocks", "last"}`: whom it is meant for, whose KV, which blocks, and how many of the
last of them. Answer: `{"blocks": [[token, ...], ...]}` or `{"error"}`. The reader then sends `{"done": true}`, or hangs
up, and the lease ends; while it reads, the lease is kept alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from .kv import BlockPool, Tokens

HANDSHAKE_TIMEOUT_S = 5.0


class HandshakeError(Exception):
    """The engine on the other side is not there, or not the one that was meant."""


class Pull(msgspec.Struct, frozen=True, kw_only=True):
    """What a decode worker asks a prefill worker for."""

    engine: str
    request: str
    blocks: list[int]
    reader: str


def listen(host: str, port: int) -> socket.socket:
    """Bind the side channel's port. OSError where it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(64)
    return listener


class SideChannel:
    """The prefill side: hands blocks out of `pool` to whoever asks for this engine."""

    def __init__(self, engine_id: str, pool: BlockPool, lease_s: float, on_read: Callable[[Pull], None]) -> None:
        self._engine_id = engine_id
        self._pool = pool
        self._lease_s = lease_s
        self._on_read = on_read
        self.notified_late = 0

    async def serve(self, listener: socket.socket) -> asyncio.Server:
        """Accept readers on `listener`."""
        return await asyncio.start_server(self._answer, sock=listener)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError, asyncio.IncompleteReadError):
            line = await reader.readline()
            if line:
                await self._hand_out(msgspec.json.decode(line, type=Pull), reader, writer)
        writer.close()

    async def _hand_out(self, pull: Pull, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if pull.engine != self._engine_id:
            await _send(writer, {"error": f"engine id mismatch: {self._engine_id}, expected {pull.engine}"})
            return
        self._on_read(pull)
        self._pool.renew(pull.request, self._lease_s)
        await _send(writer, {"blocks": self._pool.read(pull.blocks)})
        await reader.readline()
        if not self._pool.release(pull.request):
            self.notified_late += 1


@contextlib.asynccontextmanager
async def pulled(host: str, port: int, pull: Pull) -> AsyncIterator[list[Tokens]]:
    """The blocks' contents; leaving tells the other side that they were read. HandshakeError, ConnectionError."""
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host, port, limit=1 << 24)
            await _send(writer, msgspec.to_builtins(pull))
            answer: dict[str, Any] = json.loads(await reader.readline() or b'{"error": "hung up"}')
    except (OSError, TimeoutError) as error:
        raise HandshakeError(str(error)) from error
    try:
        if "error" in answer:
            raise HandshakeError(answer["error"])
        yield [tuple(block) for block in answer["blocks"]]
        await _send(writer, {"done": True})
    finally:
        writer.close()


async def _send(writer: asyncio.StreamWriter, message: Any) -> None:
    writer.write(json.dumps(message).encode() + b"\n")
    await writer.drain()
