"""What the processes of one frontend tell each other: the first one has a socket to each of the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Literal

import msgspec

from dynctl.frontend.alone import Way
from dynctl.frontend.messages import Report, WorkerTable

_HEAD_BYTES = 4
_LONGEST_BYTES = 64 << 20
_BACKLOG_BYTES = 8 << 20
"""Beyond it nothing more is said to a process that does not read."""

What = Literal["metrics", "requests"]


class Doubted(msgspec.Struct, frozen=True, tag="doubted", tag_field="op"):
    """A worker did not answer, or answers again."""

    worker: str
    failed: bool


class Seen(msgspec.Struct, frozen=True, tag="seen", tag_field="op"):
    """A prompt, by its blocks, went to that worker."""

    worker: str
    blocks: tuple[int, ...]


class Took(msgspec.Struct, frozen=True, tag="took", tag_field="op"):
    """The TTFT of a request, for `decode_alone: learn`."""

    way: Way
    tokens: int
    ttft_ms: float


class Freed(msgspec.Struct, frozen=True, tag="freed", tag_field="op"):
    """A place for a running request is free, and one who waits in another process has the turn."""


class Columns(msgspec.Struct, frozen=True, tag="columns", tag_field="op"):
    """The board's lines, in order."""

    workers: list[str]


class Serving(msgspec.Struct, frozen=True, tag="serving", tag_field="op"):
    """A further process takes connections from now on."""


class Renew(msgspec.Struct, frozen=True, tag="renew", tag_field="op"):
    """Read keys and certificate anew."""


class Stop(msgspec.Struct, frozen=True, tag="stop", tag_field="op"):
    """Drain, and end; with `hurry` what is under way is cut."""

    hurry: bool = False


class Want(msgspec.Struct, frozen=True, tag="want", tag_field="op"):
    """The first asks for a part, the others for the whole."""

    number: int
    what: What


class Have(msgspec.Struct, frozen=True, tag="have", tag_field="op"):
    """The answer to Want."""

    number: int
    body: bytes


News = Doubted | Seen | Took | Freed
Message = News | Columns | Serving | Renew | Stop | Want | Have | Report | WorkerTable

_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_ENCODER = msgspec.msgpack.Encoder()


class Link:
    """One end. `take` gets each message of the other end; `run` returns when that is gone."""

    def __init__(self, sock: socket.socket, take: Callable[[Message], None]) -> None:
        self._sock = sock
        self._take = take
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._asked = 0

    async def open(self) -> asyncio.StreamReader:
        """From now on messages can be sent."""
        reader, self._writer = await asyncio.open_unix_connection(sock=self._sock)
        return reader

    async def run(self, reader: asyncio.StreamReader) -> None:
        """Takes messages until the other end is gone."""
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(_HEAD_BYTES), "little")
                if size > _LONGEST_BYTES:
                    return
                message = _DECODER.decode(await reader.readexactly(size))
                if isinstance(message, Have):
                    answer = self._answers.get(message.number)
                    if answer is not None and not answer.done():
                        answer.set_result(message.body)
                else:
                    self._take(message)
        except (OSError, EOFError, msgspec.DecodeError):
            return
        finally:
            self.close()

    def send(self, message: Message) -> None:
        """Say it, if the other end is there and reads."""
        writer = self._writer
        if writer is None or writer.is_closing() or writer.transport.get_write_buffer_size() > _BACKLOG_BYTES:
            return
        body = _ENCODER.encode(message)
        with contextlib.suppress(OSError):
            writer.write(len(body).to_bytes(_HEAD_BYTES, "little") + body)

    def answer(self, want: Want, body: bytes) -> None:
        """What was asked for."""
        self.send(Have(want.number, body))

    async def ask(self, what: What, timeout_s: float) -> bytes | None:
        """The other end's answer; None where none comes in time."""
        self._asked += 1
        number = self._asked
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self.send(Want(number, what))
        try:
            return await asyncio.wait_for(answer, timeout_s)
        except TimeoutError:
            return None
        finally:
            del self._answers[number]

    async def flush(self) -> None:
        """Return once all is sent."""
        if self._writer is not None:
            self._writer.transport.set_write_buffer_limits(0)
            with contextlib.suppress(OSError):
                await self._writer.drain()

    def close(self) -> None:
        """Nothing more is said; who waits for an answer waits no longer."""
        if self._writer is not None:
            self._writer.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(TimeoutError())
