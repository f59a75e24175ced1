"""Bounded, patient reading below a root: what fails is told by the name of its error, never raised."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from dynctl.fabric.checks.values import Reading

MOST_BYTES = 64 * 1024
MOST_ENTRIES = 4096


def read(path: Path, most: int = MOST_BYTES) -> Reading:
    """A text file, stripped; bytes that are not UTF-8 are replaced."""
    data, error = read_bytes(path, most)
    return Reading(data.decode("utf-8", "replace").strip(), None) if error is None else Reading(None, error)


def read_bytes(path: Path, most: int = MOST_BYTES) -> tuple[bytes, str | None]:
    """At most `most` bytes of a file, and the error's name if it could not be read. A FIFO never blocks."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        return b"", error_name(error)
    try:
        return os.read(descriptor, most), None
    except OSError as error:
        return b"", error_name(error)
    finally:
        os.close(descriptor)


def can_open(path: Path) -> str | None:
    """None if a device file opens for reading and writing, else the error's name."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except (OSError, ValueError) as error:
        return error_name(error)
    return None


def names(path: Path) -> tuple[str, ...]:
    """Names in a directory, in the order people count in (`mlx5_2` before `mlx5_10`); empty if it can't be listed."""
    return listing(path)[0]


def listing(path: Path) -> tuple[tuple[str, ...], str | None]:
    """Names in a directory, and why there are none."""
    try:
        with os.scandir(path) as entries:
            found = [entry.name for entry, _ in zip(entries, range(MOST_ENTRIES), strict=False)]
    except (OSError, ValueError) as error:
        return (), error_name(error)
    return tuple(sorted(found, key=_natural)), None


def link(path: Path) -> Reading:
    """Where a symbolic link points, unresolved: `net:[4026531840]`."""
    try:
        return Reading(os.readlink(path), None)
    except (OSError, ValueError) as error:
        return Reading(None, error_name(error))


def real(path: Path) -> Path | None:
    """The path with all links resolved; None if it does not exist or runs in a circle."""
    try:
        return path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None


def device_path(root: Path, path: Path) -> tuple[str, ...]:
    """Components below <root>/sys/devices of what `path` links to; empty if it leads elsewhere."""
    found, base = real(path), real(root / "sys/devices")
    if found is None or base is None or not found.is_relative_to(base):
        return ()
    return found.relative_to(base).parts


def error_name(error: Exception) -> str:
    """`EACCES`, or the kind of error where it has no number."""
    number = getattr(error, "errno", None)
    return errno.errorcode.get(number, str(number)) if number else type(error).__name__


def _natural(name: str) -> tuple[str | int, ...]:
    parts = re.split(r"([0-9]+)", name)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))
