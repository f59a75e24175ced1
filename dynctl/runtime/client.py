"""The viewer's end of the control socket: what the command line uses to watch, ask and end a run."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import msgspec

from dynctl.errors import RunStateError
from dynctl.runtime.messages import (
    MAX_LINE_BYTES,
    AskStatus,
    Attach,
    Down,
    FromSupervisor,
    StatusNow,
    encode,
    from_supervisor,
)
from dynctl.telemetry.status import RunStatus


class SupervisorLost(Exception):
    """The supervisor closed the connection without saying that the run has ended."""


class Connection:
    """A connection to a run's supervisor. Usable as a context manager."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise RunStateError(
                "the supervisor does not answer",
                where=path,
                why=error.strerror,
                fix="`dynctl status` shows what is left",
            ) from error
        self._buffer = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; the run goes on."""
        self._socket.close()

    def shut(self) -> None:
        """Wakes whoever reads in another thread: it finds the stream ended."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def fileno(self) -> int:
        """For select()."""
        return self._socket.fileno()

    def say(self, message: msgspec.Struct) -> None:
        """Sends one message; a supervisor that is gone is noticed when reading."""
        with contextlib.suppress(OSError):
            self._socket.sendall(encode(message))

    def read(self, timeout_s: float | None = None) -> list[FromSupervisor]:
        """What has arrived, waiting at most `timeout_s`. Raises SupervisorLost at the end of the stream."""
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            return []
        except OSError as error:
            raise SupervisorLost(str(error)) from error
        if not data or len(self._buffer) > MAX_LINE_BYTES:
            raise SupervisorLost("connection closed")
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [from_supervisor(line) for line in lines if line]

    def messages(self) -> Iterator[FromSupervisor]:
        """Every message until the supervisor goes away."""
        while True:
            try:
                yield from self.read()
            except SupervisorLost:
                return


def ask_status(path: str, timeout_s: float = 5.0) -> RunStatus:
    """The run's status now; RunStateError when the supervisor does not answer in time."""
    deadline = time.monotonic() + timeout_s
    with Connection(path) as connection, contextlib.suppress(SupervisorLost):
        connection.say(AskStatus())
        while (left_s := deadline - time.monotonic()) > 0:
            for message in connection.read(left_s):
                if isinstance(message, StatusNow):
                    return message.status
    raise RunStateError("the supervisor does not answer", where=path, fix="try again; `dynctl down` ends the run")


def attach(path: str, *, starter: bool = False, requests: bool = False) -> Connection:
    """Begins to watch a run."""
    connection = Connection(path)
    connection.say(Attach(starter=starter, requests=requests))
    return connection


def ask_down(connection: Connection, *, grace_s: float, now: bool, everywhere: bool = False) -> None:
    """Asks for the run's end over an open connection; `everywhere`: on all its nodes."""
    connection.say(Down(grace_s=grace_s, now=now, everywhere=everywhere))
