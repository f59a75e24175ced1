"""The control socket: viewers and the frontend speak with the supervisor here. Private by its directory (0700)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Protocol

import msgspec

from dynctl.frontend.messages import Hello, Report, ToFrontend
from dynctl.runtime.messages import (
    MAX_LINE_BYTES,
    AskStatus,
    Attach,
    Done,
    Down,
    Drain,
    FromSupervisor,
    Happened,
    Operation,
    Ready,
    Restart,
    Scale,
    StatusNow,
    ToSupervisor,
    Undrain,
    encode,
    to_supervisor,
)
from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus

BUFFER_LIMIT_BYTES = 8 << 20
"""A viewer that reads too slowly is let go rather than kept in memory."""


class Desk(Protocol):
    """What the control socket asks of the supervisor."""

    def status(self) -> RunStatus:
        """The run's status now."""

    def is_ready(self) -> bool:
        """Whether every gate was open once."""

    def past_events(self) -> list[Event]:
        """Events so far."""

    def starter_left(self) -> None:
        """The client that started the run went away."""

    def ask_down(self, grace_s: float, *, now: bool, everywhere: bool = False) -> None:
        """Somebody asked for the run's end."""

    def operate(self, asked: Operation, answer: Callable[[Done], None]) -> None:
        """An operator asked for something; `answer` is called when it has ended."""

    def frontend_reported(self, report: Report) -> None:
        """The frontend finished requests."""

    def frontend_hello(self) -> ToFrontend:
        """A frontend connected; the answer is its worker table."""


class Viewer:
    """One connected viewer. `requests` viewers also get request events."""

    def __init__(self, writer: asyncio.StreamWriter, attach: Attach) -> None:
        self._writer, self.attach = writer, attach

    def writes_to(self, writer: asyncio.StreamWriter) -> bool:
        """Whether this viewer sits at that connection."""
        return self._writer is writer

    async def let_go(self, timeout_s: float) -> None:
        """Gives it the time to read what was sent, then ends its connection."""
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.drain(), timeout_s)
        self._writer.close()

    def send(self, message: FromSupervisor) -> None:
        """Queues a message; a viewer that does not read is disconnected."""
        if self._writer.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > BUFFER_LIMIT_BYTES:
            self._writer.close()
            return
        self._writer.write(encode(message))


class Control:
    """Serves the socket. Everything it learns goes to the desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._viewers: set[Viewer] = set()
        self._frontends: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, listener: socket.socket) -> None:
        """Begins to accept."""
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_LINE_BYTES)

    def close(self) -> None:
        """Accepts no more."""
        if self._server:
            self._server.close()

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Gives viewers the time to read what was sent, then lets them go."""
        await asyncio.gather(*(viewer.let_go(timeout_s) for viewer in tuple(self._viewers)))

    def tell_viewers(self, message: FromSupervisor) -> None:
        """Sends to every viewer; request events only to those that asked."""
        is_request = isinstance(message, Happened) and message.event.kind == "request"
        for viewer in tuple(self._viewers):
            if not is_request or viewer.attach.requests:
                viewer.send(message)

    def tell_frontends(self, message: ToFrontend) -> None:
        """Pushes to every connected frontend."""
        for writer in tuple(self._frontends):
            if not writer.is_closing():
                writer.write(msgspec.json.encode(message) + b"\n")

    @property
    def watched(self) -> bool:
        """Whether anybody looks on."""
        return bool(self._viewers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        leave: list[Callable[[], None]] = []
        try:
            while line := await reader.readline():
                self._take(to_supervisor(line), writer, leave)
        except (OSError, ValueError, msgspec.DecodeError):
            pass  # a client that breaks off or speaks nonsense is let go
        finally:
            for farewell in leave:
                farewell()
            writer.close()

    def _take(
        self,
        message: ToSupervisor,
        writer: asyncio.StreamWriter,
        leave: list[Callable[[], None]],
    ) -> None:
        match message:
            case Report():
                self._desk.frontend_reported(message)
            case Hello():
                self._frontends.add(writer)
                leave.append(lambda: self._frontends.discard(writer))
                writer.write(msgspec.json.encode(self._desk.frontend_hello()) + b"\n")
            case AskStatus():
                writer.write(encode(StatusNow(status=self._desk.status())))
            case Down():
                self._view(writer, Attach(), leave, replay=False)
                self._desk.ask_down(message.grace_s, now=message.now, everywhere=message.everywhere)
            case Restart() | Drain() | Undrain() | Scale():
                self._view(writer, Attach(), leave, replay=False)
                self._desk.operate(message, lambda done: _write(writer, done))
            case Attach():
                self._view(writer, message, leave, replay=True)

    def _view(
        self, writer: asyncio.StreamWriter, attach: Attach, leave: list[Callable[[], None]], *, replay: bool
    ) -> None:
        if any(viewer.writes_to(writer) for viewer in self._viewers):
            return  # a viewer that asks for the end goes on viewing
        viewer = Viewer(writer, attach)
        for event in self._desk.past_events() if replay else ():
            viewer.send(Happened(event=event))
        viewer.send(StatusNow(status=self._desk.status()))
        if self._desk.is_ready():
            viewer.send(Ready())
        self._viewers.add(viewer)
        leave.append(lambda: self._viewers.discard(viewer))
        if attach.starter:
            leave.append(self._desk.starter_left)


def _write(writer: asyncio.StreamWriter, message: Done) -> None:
    if not writer.is_closing():
        writer.write(encode(message))
