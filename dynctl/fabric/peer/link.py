"""The connection of two nodes: framed messages with a bound and a deadline, and a beat that shows it alive.

A link that goes down says nothing by itself, so both ends beat once a second; silence for `SILENCE_S` is the end of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Coroutine
from typing import Any, TypeVar, Union

import msgspec

from dynctl.errors import TransportError
from dynctl.fabric.peer.handshake import (
    HELLO_BYTES,
    MAC_BYTES,
    MESSAGE_BYTES,
    Handshake,
    Proof,
    Purpose,
    Refusal,
    Seal,
    Side,
)
from dynctl.fabric.peer.messages import Trouble

BEAT_S = 1.0
SILENCE_S = 5.0
GREETING_S = 5.0
"""How long the whole handshake may take."""
UNREAD_BYTES = 4 * MESSAGE_BYTES
"""A peer that lets so much wait unread hangs."""
T = TypeVar("T")
_LENGTH = 4


class Link:
    """Sealed messages both ways. What either end has to say is a msgspec Struct; `receive` names the one it awaits."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seals: tuple[Seal, Seal]) -> None:
        self._reader, self._writer = reader, writer
        self._sending, self._receiving = seals
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._lost: asyncio.Future[TransportError] = asyncio.get_running_loop().create_future()
        self.heard_at = time.monotonic()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._beat())]

    def send(self, message: msgspec.Struct) -> None:
        """Queues a message; a link that is down shows in the next `receive` or `during`."""
        payload = msgspec.json.encode(message)
        if len(payload) > MESSAGE_BYTES:
            raise TransportError(f"a message of {len(payload)} bytes is too long for the peer")
        self._frame(payload)

    async def receive(self, kind: type[T]) -> T:
        """The peer's next message. TransportError when the link is lost or the message is not of that kind."""
        # what came before the link was lost still counts
        payload = await self.during(self._inbox.get()) if self._inbox.empty() else self._inbox.get_nowait()
        try:
            said: T | Trouble = msgspec.json.decode(payload, type=Union[kind, Trouble])  # noqa: UP007 - of a type that is a value
        except msgspec.DecodeError as error:
            raise TransportError("the peer sent a message that does not belong here", why=str(error)) from error
        if isinstance(said, Trouble):
            raise TransportError(f"the peer gave up: {said.cause}", fix=said.fix)
        return said

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, unless the link is lost first: then it is cancelled."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((task, self._lost), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return await task
            raise self._lost.result()
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    async def close(self) -> None:
        """Sends what is queued and ends the connection; whoever waits for a message learns that none comes."""
        self._lose(silent("this end closed the connection"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await shut(self._writer)

    async def _read(self) -> None:
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    message = await read_frame(self._reader, MESSAGE_BYTES + MAC_BYTES)
                payload = self._receiving.open(message)
                self.heard_at = time.monotonic()
                if payload:
                    self._inbox.put_nowait(payload)
        except TransportError as error:
            self._lose(error)
        except TimeoutError:
            self._lose(silent(f"nothing came for {SILENCE_S:g} s: the link is down, or the peer hangs"))
        except (OSError, asyncio.IncompleteReadError) as error:
            self._lose(silent("it closed the connection" if isinstance(error, EOFError) else str(error)))

    async def _beat(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._frame(b"")
                await asyncio.sleep(BEAT_S)

    def _frame(self, payload: bytes) -> None:
        if self._writer.transport.get_write_buffer_size() > UNREAD_BYTES:
            self._lose(silent("it does not read what it is sent"))
            return
        write_frame(self._writer, self._sending.close(payload))

    def _lose(self, error: TransportError) -> None:
        if not self._lost.done():
            self._lost.set_result(error)


async def greet(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    side: Side,
    token: str,
    version: str,
    purpose: Purpose | None = None,
) -> Link:
    """The handshake. TransportError or UsageError with the cause when it fails; the connection is closed then.

    `purpose`: what the link is for, `check-rdma` by default.
    """
    purpose = purpose or Purpose()
    try:
        async with asyncio.timeout(GREETING_S):
            return await _greet(reader, writer, Handshake(side, token, version, secrets.token_bytes(32), purpose))
    except TimeoutError:
        await shut(writer)
        raise purpose.not_dynctl() from None
    except (OSError, asyncio.IncompleteReadError) as error:
        await shut(writer)
        partial = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
        if partial:
            raise purpose.not_dynctl(partial) from error
        raise silent("it closed the connection during the handshake") from error
    except BaseException:
        await shut(writer)
        raise


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: Handshake) -> Link:
    write_frame(writer, state.own)
    state.meet(await read_frame(reader, HELLO_BYTES, state.purpose))
    if state.side == "connect":
        write_frame(writer, msgspec.json.encode(state.proof()))
    answer = await read_frame(reader, HELLO_BYTES, state.purpose)
    try:
        said = msgspec.json.decode(answer, type=Proof | Refusal)
    except msgspec.DecodeError as error:
        raise state.purpose.not_dynctl(answer) from error
    if isinstance(said, Refusal) or not state.holds(said):
        if state.side == "listen":
            write_frame(writer, msgspec.json.encode(Refusal()))
        raise state.purpose.wrong_token(state.side)
    if state.side == "listen":
        write_frame(writer, msgspec.json.encode(state.proof()))
    return Link(reader, writer, state.seals())


async def read_frame(reader: asyncio.StreamReader, most: int, purpose: Purpose | None = None) -> bytes:
    """One message, its length before it in four bytes. TransportError for one longer than `most`.

    `purpose`: who speaks is not known yet, and may not be dynctl at all.
    """
    head = await reader.readexactly(_LENGTH)
    length = int.from_bytes(head, "big")
    if length > most:
        raise purpose.not_dynctl(head + await reader.read(56)) if purpose else silent("it sent too long a message")
    return await reader.readexactly(length)


def write_frame(writer: asyncio.StreamWriter, message: bytes) -> None:
    """Queues one message."""
    writer.write(len(message).to_bytes(_LENGTH, "big") + message)


async def shut(writer: asyncio.StreamWriter) -> None:
    """Ends a connection, without waiting long for a peer that does not read."""
    writer.close()
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(BEAT_S):
                await writer.wait_closed()
    finally:
        writer.transport.abort()


def silent(why: str) -> TransportError:
    """The peer is gone."""
    return TransportError(
        "the peer is gone",
        why=why,
        fix="see the other node's output; is the interface up (`ip -br link`), and does a firewall cut connections?",
    )
