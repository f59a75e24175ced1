"""Reads on in a log that grows and is rotated meanwhile: every complete line once, none lost, none repeated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dynctl.store.rotation import generations, swap

READ_BYTES = 1 << 20
LONGEST_LINE_BYTES = 1 << 16


class Follower:
    """Where a reader is in a log. A rotation shows by a new `.1`: what was not read yet of the old log is read there.

    `offset`: bytes of the present log that were read. `rest`: the beginning of a line that has no end yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rest = b""
        self._older = _identities(path)
        self._swap: int | None = None
        self._seen: tuple[int, int, int] | None = None
        self.offset = 0

    def skip_to_end(self) -> None:
        """Begins at the present end."""
        self._older = _identities(self._path)
        try:
            self.offset = self._path.stat().st_size
        except OSError:
            self.offset = 0
        self.rest = b""

    def rewind(self) -> None:
        """Begins anew at the present log's first line."""
        self._older = _identities(self._path)
        self.offset, self.rest = 0, b""

    def lines(self) -> Iterator[bytes]:
        """Complete lines since the last look, without their ends. A log that can't be read has nothing new."""
        if (now := _stamp(self._path)) == self._seen:
            return  # most looks at a quiet log end here
        self._seen = None
        if self._swap is not None and self._swap != _inode(swap(self._path)):
            self._swap = None
        while (older := self._settled()) is not None:
            if older != self._older:
                yield from self._catch_up(older)
            data, size = self._read()
            if self._settled() != older:
                continue  # rotated while it was read: what was read is in the rotated log, too
            if size < self.offset:
                self.offset, self.rest = 0, b""  # truncated by somebody else
                continue
            yield from self._take(data)
            if len(data) < READ_BYTES:
                self._seen = now
                return

    def _settled(self) -> list[int] | None:
        """The rotated logs; None while a rotation puts them in place. A swap that was left behind is passed over."""
        while True:
            found = _identities(self._path)
            under_way = _inode(swap(self._path))
            if under_way is not None and under_way != self._swap:
                self._swap = under_way
                return None
            if found == _identities(self._path):
                return found

    def _catch_up(self, older: list[int]) -> Iterator[bytes]:
        """What is unread in the logs rotated since the last look, the oldest first; then the log's new beginning."""
        before = self._older[0] if self._older else None
        fresh = older.index(before) if before in older else len(older)
        for path in reversed(generations(self._path)[:fresh]):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if file.seek(0, 2) < self.offset:
                    self.rest = b""  # half a write, of which the rotation kept nothing
                file.seek(self.offset)
                while chunk := file.read(READ_BYTES):
                    yield from self._take(chunk)
            self.offset = 0  # a line may begin in one log and end in the next
        self._older = older

    def _read(self) -> tuple[bytes, int]:
        """What comes next, and the log's size; at most READ_BYTES."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(self.offset)
                return file.read(READ_BYTES), size
        except OSError:
            return b"", self.offset

    def _take(self, data: bytes) -> Iterator[bytes]:
        self.offset += len(data)
        *complete, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest[-LONGEST_LINE_BYTES:]
        yield from complete


def _identities(path: Path) -> list[int]:
    """Inodes of the rotated logs, the newest first."""
    return [found for older in generations(path) if (found := _inode(older)) is not None]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What is another after every write and every rotation."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
