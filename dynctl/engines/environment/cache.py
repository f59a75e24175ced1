"""The user's cache: where it is, and one writer at a time."""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dynctl.errors import HostError

POLL_S = 0.2


def cache_root() -> Path:
    """dynctl's part of the user's cache. A relative XDG_CACHE_HOME does not count (XDG Base Directory Spec)."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "dynctl"


def make_folder(folder: Path) -> Path:
    """The folder, made where it is missing. Raises HostError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(
            "the cache directory can't be written",
            where=str(folder),
            why=str(error),
            fix="make it writable, or set XDG_CACHE_HOME to a directory that is",
        ) from None
    return folder


@contextmanager
def exclusive(path: Path, waiting: Callable[[int], None]) -> Iterator[int]:
    """Holds the lock file; yields its descriptor. While another process has it, calls `waiting` with 0, 1, 2, ...

    A child that inherits the descriptor keeps the lock until it ends too, so that nobody cleans up under a writer
    whose parent was killed. The file is never removed: another process may be waiting on it.
    """
    make_folder(path.parent)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError("the cache directory can't be written", where=str(path), why=str(error)) from None
    try:
        for turn in itertools.count():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting(turn)
                time.sleep(POLL_S)
        yield lock
    finally:
        os.close(lock)
