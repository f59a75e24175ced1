"""POSIX shared memory that a run's own processes made: an engine killed hard leaves it behind.

A run's are the segments and semaphores (shm_overview(7), sem_overview(7): files directly in /dev/shm) that one of its
processes was seen to map, of this user, and made after the process began. What was there before is somebody's: weights
that were put into memory, for one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil

from dynctl.runtime import spawned

SHARED_MEMORY = "/dev/shm/"  # noqa: S108 - where Linux keeps POSIX shared memory

AT_FDCWD, AT_SYMLINK_NOFOLLOW, STATX_BTIME = -100, 0x100, 0x800
STATX_BYTES, BTIME_AT = 256, 80
"""Of `struct statx`: its length, and where `stx_btime` begins."""


class Segment(msgspec.Struct, frozen=True):
    """One, by more than its name, which may be another's later."""

    path: str
    device: int
    inode: int

    def is_there(self) -> bool:
        """Whether that very one still exists."""
        with contextlib.suppress(OSError):
            found = os.lstat(self.path)
            return (found.st_dev, found.st_ino, found.st_uid) == (self.device, self.inode, os.getuid())
        return False


def mapped_by(pids: Iterable[int]) -> set[str]:
    """Paths of what these processes have mapped of shared memory now. What can't be read is left out.

    By inode: glibc makes a semaphore under another name, links it to its own and removes the first, so that the maps of
    its maker show a deleted file.
    """
    inodes: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
            inodes.update(int(line.split(None, 5)[4]) for line in lines if SHARED_MEMORY in line)
    with contextlib.suppress(OSError), os.scandir(SHARED_MEMORY) as entries:
        return {entry.path for entry in entries if entry.inode() in inodes}
    return set()


def made_by(processes: Iterable[psutil.Process]) -> set[Segment]:
    """What these processes have mapped now and what was made since the first of them began."""
    began = {process.pid: at for process in processes if (at := _began(process.pid))}
    return {segment for path in mapped_by(began) if (segment := _made(path, min(began.values())))}


def _began(pid: int) -> float | None:
    """When a process began, in seconds since 1970, to a clock tick and rather too early; None when it is gone."""
    ticks = spawned.start_ticks(pid)
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return None if ticks is None else time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")


def _made(path: str, since: float) -> Segment | None:
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        own = stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid()
        if own and (_born(path) or found.st_ctime) >= since:
            return Segment(path, found.st_dev, found.st_ino)
    return None


def _born(path: str) -> float | None:
    """When a file was made, in seconds since 1970; None where that is not kept. Its ctime may be later (statx(2))."""
    libc, found = ctypes.CDLL(None), ctypes.create_string_buffer(STATX_BYTES)
    if not hasattr(libc, "statx") or libc.statx(AT_FDCWD, path.encode(), AT_SYMLINK_NOFOLLOW, STATX_BTIME, found):
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", found, BTIME_AT)
    (known,) = struct.unpack_from("=I", found)
    return seconds + nanoseconds / 1e9 if known & STATX_BTIME else None


def left(segments: Iterable[Segment]) -> list[Segment]:
    """Those that are there and that nobody on this host maps."""
    there = [segment for segment in segments if segment.is_there()]
    used = mapped_by(psutil.pids()) if there else set()
    return sorted((segment for segment in there if segment.path not in used), key=lambda segment: segment.path)


def remove_unused(segments: Iterable[Segment]) -> list[str]:
    """Removes those that nobody maps any more; the paths of the ones removed."""
    removed = []
    for segment in left(segments):
        with contextlib.suppress(OSError):
            os.unlink(segment.path)
            removed.append(segment.path)
    return removed
