"""POSIX shared memory that a run's own processes made: an engine killed hard leaves it behind.

A run's are the segments and semaphores (shm_overview(7), sem_overview(7): files directly in /dev/shm) that one of its
processes was seen to map, of this user, and that were not there before that process was started. What was is
somebody's: weights that were put into memory, for one. What there was is noted at each start, by inode: files are
stamped by the wall clock, which may jump. Only where that note was lost does the clock tell.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import stat
import struct
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil

from dynctl.runtime import spawned
from dynctl.runtime.spawned import Spawned

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
    inodes: set[int] = set().union(*map(_mapped, pids))
    return {path for inode, path in (present() or {}).items() if inode in inodes}


def present() -> dict[int, str] | None:
    """All that there is now, path by inode; None where that can't be told."""
    with contextlib.suppress(OSError), os.scandir(SHARED_MEMORY) as entries:
        return {entry.inode(): entry.path for entry in entries}
    return None


def made_by(processes: Iterable[psutil.Process], starts: Iterable[Spawned]) -> set[Segment]:
    """What these processes have mapped now and what was not there before the start, of `starts`, that each came of."""
    found, there, members = set(), present() or {}, list(processes)
    before = {one.session: one.shared for one in starts}
    began = min((at for member in members if (at := _began(member.pid))), default=math.inf)
    for member in members:
        with contextlib.suppress(OSError):
            old = before.get(os.getsid(member.pid))
            for inode in _mapped(member.pid) & there.keys():
                segment = _own(there[inode])
                if segment and (_born(segment) >= began if old is None else inode not in old):
                    found.add(segment)
    return found


def _mapped(pid: int) -> set[int]:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        return {int(line.split(None, 5)[4]) for line in lines if SHARED_MEMORY in line}
    return set()


def _began(pid: int) -> float | None:
    """When a process began, in seconds since 1970, to a clock tick and rather too early; None when it is gone."""
    ticks = spawned.start_ticks(pid)
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return None if ticks is None else time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")


def _own(path: str) -> Segment | None:
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid():
            return Segment(path, found.st_dev, found.st_ino)
    return None


def _born(segment: Segment) -> float:
    """When it was made, in seconds since 1970; where that is not kept when it was changed, which may be later."""
    libc, found = ctypes.CDLL(None), ctypes.create_string_buffer(STATX_BYTES)
    path = segment.path.encode()
    if hasattr(libc, "statx") and libc.statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BTIME, found) == 0:
        seconds, nanoseconds = struct.unpack_from("=qI", found, BTIME_AT)
        (known,) = struct.unpack_from("=I", found)
        if known & STATX_BTIME:
            return float(seconds + nanoseconds / 1e9)
    return os.lstat(path).st_ctime


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
