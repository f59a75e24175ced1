"""The event log of a running run: appended to disk, kept in memory for late readers, handed to listeners."""

from __future__ import annotations

import contextlib
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

    A disk that can't be written loses events there, never the run.
    """

    def __init__(self, path: Path, wall_clock: Callable[[], float]) -> None:
        self._path, self._wall_clock = path, wall_clock
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        self._written = self._file.tell()
        self._seq, torn = _end_of(path)
        if torn:
            with contextlib.suppress(OSError):
                self._file.write(b"\n")
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
        with contextlib.suppress(OSError, ValueError):  # a full disk or a closed file costs the record, not the run
            self._written += self._file.write(msgspec.json.encode(event) + b"\n")
            if self._written >= LIMIT_BYTES:
                self._written = 0
                rotate(self._path)
        for listener in tuple(self.listeners):
            listener(event)
        return event

    def reopen(self) -> None:
        """Where the file on disk is gone, begins it anew with the events in memory. OSError."""
        if self._path.exists():
            return
        self._file.close()
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        self._written = self._file.write(b"".join(msgspec.json.encode(event) + b"\n" for event in self.recent))

    def close(self) -> None:
        """Closes the file on disk."""
        self._file.close()


def _end_of(path: Path) -> tuple[int, bool]:
    """The last number used, 0 if none, and whether the file's last line was torn off."""
    for part in (path, rotated(path, 1)):
        with contextlib.suppress(OSError), part.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - END_BYTES))
            data = file.read()
            for line in reversed(data.splitlines()):
                with contextlib.suppress(msgspec.DecodeError):
                    return msgspec.json.decode(line, type=Event).seq, part == path and not data.endswith(b"\n")
    return 0, False
