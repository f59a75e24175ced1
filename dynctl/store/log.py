"""The event log of a running run: appended to disk, kept in memory for late readers, handed to listeners."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from dynctl.store.event import Event, EventKind
from dynctl.store.rotation import rotate, rotated

KEPT_EVENTS = 2000
LIMIT_BYTES = 16 << 20
"""The file is rotated when it has grown to this."""
END_BYTES = 1 << 16
"""So much of its end holds at least one event."""


class EventLog:
    """Numbers, stores and passes on events, after those that the file has.

    Those that a full disk does not take are kept in memory and written later. `trouble`: why, while that is so.
    """

    def __init__(self, path: Path, wall_clock: Callable[[], float]) -> None:
        self._path, self._wall_clock = path, wall_clock
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        self._written = self._file.tell()
        self._seq, self._torn = _end_of(path)
        self._unwritten: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self.trouble: str | None = None
        self.recent: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self.listeners: list[Callable[[Event], None]] = []

    def add(
        self,
        kind: EventKind,
        message: str,
        *,
        process: str | None = None,
        state: str | None = None,
        phase: str | None = None,
        why: str | None = None,
        who: str = "supervisor",
        data: dict[str, object] | None = None,
    ) -> Event:
        """Records one event and tells the listeners."""
        self._seq += 1
        event = Event(
            seq=self._seq,
            at=self._wall_clock(),
            kind=kind,
            message=message,
            who=who,
            why=why,
            process=process,
            state=state,
            phase=phase,
            data=data or {},
        )
        self.recent.append(event)
        self._unwritten.append(event)
        self.flush()
        for listener in tuple(self.listeners):
            listener(event)
        return event

    def flush(self) -> None:
        """Writes what could not be written so far. A full disk or a closed file costs the record, not the run."""
        try:
            while self._unwritten:
                line = b"\n" * self._torn + msgspec.json.encode(self._unwritten[0]) + b"\n"
                written = self._file.write(line)
                self._torn = self._torn or 0 < written < len(line)
                if written < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._torn = False
                self._unwritten.popleft()
                self._written += written
                if self._written >= LIMIT_BYTES:
                    self._written = 0
                    with contextlib.suppress(OSError):
                        rotate(self._path)
            self.trouble = None
        except (OSError, ValueError) as error:
            self.trouble = getattr(error, "strerror", None) or str(error)

    def reopen(self) -> None:
        """Where the file on disk is gone, begins it anew with the events in memory."""
        if self._path.exists():
            return
        try:
            fresh = open(self._path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        except OSError as error:
            self.trouble = error.strerror
            return
        self._file.close()
        self._file, self._written, self._torn = fresh, 0, False
        self._unwritten = deque(self.recent, maxlen=KEPT_EVENTS)
        self.flush()

    def close(self) -> None:
        """Closes the file on disk."""
        self._file.close()


def _end_of(path: Path) -> tuple[int, bool]:
    """The last number used, 0 if none, and whether the file's last line was torn off."""
    for part in (path, rotated(path, 1)):
        with contextlib.suppress(OSError), part.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - END_BYTES))
            data = file.read(END_BYTES)
            for line in reversed(data.splitlines()):
                with contextlib.suppress(msgspec.DecodeError):
                    return msgspec.json.decode(line, type=Event).seq, part == path and not data.endswith(b"\n")
    return 0, False
