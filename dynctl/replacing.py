"""Files that others may read at any time: they see the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False, fresh: bool = False) -> Iterator[BinaryIO]:
    """What is written takes `path`'s place when the block ends without an error; else `path` is as before.

    `private`: readable by its owner only. `fresh`: FileExistsError where something is at `path` by then. OSError as the
    disk says it. A device, a pipe, an open descriptor's name (`/dev/stdout`) has no content to keep: it is written to.
    """
    if not (private or fresh) and _is_stream(path):
        with path.open("wb") as file:
            yield file
        return
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    mode = 0o600 if private else 0o666
    try:
        partial.unlink(missing_ok=True)  # of a killed process that had this id
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(partial, flags, mode), "wb") as file:
            yield file
        if fresh:
            os.link(partial, path)
        else:
            partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    if path.is_symlink() and os.readlink(path).startswith("/proc/"):
        return True
    return path.exists() and not (path.is_file() or path.is_dir())


def replace(path: Path, content: bytes, *, private: bool = False, fresh: bool = False) -> None:
    """`replacing` with content that is there already."""
    with replacing(path, private=private, fresh=fresh) as file:
        file.write(content)
