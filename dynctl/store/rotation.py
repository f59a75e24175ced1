"""Rotation of logs that other processes hold open: copied to `NAME.1`, then truncated; older ones move to `.2`, `.3`.

A process's stdout is an O_APPEND file, so that it writes on at the new beginning. What it writes in the instant between
the last look at the log's size and the truncation is lost; everything before is kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import IO

LIMIT_BYTES = 64 << 20
"""A log that has grown beyond this is rotated."""
KEPT = 3
"""How many rotated logs are kept beside the one that is written."""
CHUNK_BYTES = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TAIL_BYTES = 1 << 16


def rotate(path: Path, *, kept: int = KEPT) -> None:
    """Copies the log to `.1` and truncates it. OSError, the log as it was, where the copy can't be written."""
    partial = path.with_name(f".{path.name}.partial")
    _require_room(path, kept)
    try:
        with path.open("r+b", buffering=0) as log, partial.open("wb", buffering=0) as copy:
            os.fchmod(copy.fileno(), 0o600)
            _copy(log, copy)
            partial = partial.rename(swap(path))
            _make_way(path, kept)
            _copy(log, copy)  # what came meanwhile
            _drop_half_a_write(log, copy)
            log.truncate(0)
            partial.replace(rotated(path, 1))
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _require_room(path: Path, kept: int) -> None:
    """OSError where the copy would fill the disk, of which every log would lose lines. The oldest goes first."""
    for oldest in (rotated(path, kept), None):
        disk = os.statvfs(path.parent)
        if path.stat().st_size + CHUNK_BYTES <= disk.f_bavail * disk.f_frsize:
            return
        if oldest:
            oldest.unlink(missing_ok=True)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def swap(path: Path) -> Path:
    """The copy while it takes its place: readers look again a moment later."""
    return path.with_name(f".{path.name}.swap")


def _copy(log: IO[bytes], copy: IO[bytes]) -> None:
    while chunk := log.read(CHUNK_BYTES):
        left = memoryview(chunk)
        while left:
            left = left[copy.write(left) :]


def _drop_half_a_write(log: IO[bytes], copy: IO[bytes]) -> None:
    """A write over two pages of a file is seen half for a moment. Its other half goes with the truncation, and the next
    line would seem to end this one."""
    end = log.tell()
    if end % _PAGE_BYTES:
        return
    begin = max(0, end - _TAIL_BYTES)
    tail = os.pread(log.fileno(), end - begin, begin)
    if (whole := tail.rfind(b"\n") + 1) and whole < len(tail):
        copy.truncate(begin + whole)


def _make_way(path: Path, kept: int) -> None:
    for number in range(kept, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            if number == kept:
                rotated(path, number).unlink()
            else:
                rotated(path, number).rename(rotated(path, number + 1))


def rotated(path: Path, number: int) -> Path:
    """Where the log that was rotated so many times lies."""
    return path.with_name(f"{path.name}.{number}")


def generations(path: Path) -> list[Path]:
    """The rotated logs that there are, the newest first. However many: an earlier limit may have kept more."""
    found: list[Path] = []
    while (older := rotated(path, len(found) + 1)).is_file():
        found.append(older)
    return found
