"""The access log: one JSON line for each request that was meant for an engine."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from dynctl.errors import UsageError
from dynctl.frontend.messages import RequestRecord
from dynctl.http.message import Request

_STDOUT = "-"


class AccessLog:
    """Appends to a file, or to stdout for `-`. UsageError where it can't be opened; a full disk costs the line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._open()

    def reopen(self) -> None:
        """Go on in a new file where the old one was moved away. UsageError, and the old goes on."""
        old, self._file = self._file, self._open()
        if old != sys.stdout.fileno():
            os.close(old)

    def write(self, record: RequestRecord, request: Request, client: str | None) -> None:
        """A request that ended; `client`: its address, None over a unix socket."""
        known = msgspec.to_builtins(record)
        at = datetime.fromtimestamp(known.pop("at"), UTC).isoformat(timespec="milliseconds")
        agent = (request.header(b"user-agent") or b"").decode("latin-1")[:200]
        line = {"time": at, "client": client, "method": request.method, **known, "user_agent": agent}
        with contextlib.suppress(OSError):
            os.write(self._file, msgspec.json.encode(line) + b"\n")

    def _open(self) -> int:
        if str(self._path) == _STDOUT:
            return sys.stdout.fileno()
        try:
            return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise UsageError("can't write the access log", where=str(self._path), why=error.strerror) from None
