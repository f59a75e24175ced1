"""What a run has started, on disk: pid, start time, session and control group of each process, one JSON line each."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil

from dynctl.store.run import SPAWNED_FILE


class Spawned(msgspec.Struct, frozen=True, kw_only=True):
    """One process as it was started. `start_ticks`: since boot, by the kernel's clock, which no clock jump moves.

    `epoch`: which start of a worker on several nodes it belongs to. `shared`: inodes of the shared memory that was
    there before, where that could be told.
    """

    run_id: str
    id: str
    pid: int
    start_ticks: int
    session: int
    cgroup: str | None = None
    epoch: str | None = None
    shared: tuple[int, ...] | None = None


def note(
    directory: Path,
    run_id: str,
    process_id: str,
    pid: int,
    cgroup: str | None,
    *,
    epoch: str | None = None,
    shared: Iterable[int] | None = None,
) -> None:
    """Appends one. A disk that can't be written costs the record: the environment still tells whose it is."""
    one = Spawned(
        run_id=run_id,
        id=process_id,
        pid=pid,
        start_ticks=start_ticks(pid) or 0,
        session=pid,  # every process is started as the leader of a session of its own
        cgroup=cgroup,
        epoch=epoch,
        shared=None if shared is None else tuple(shared),
    )
    with contextlib.suppress(OSError), open(directory / SPAWNED_FILE, "ab", buffering=0) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(msgspec.json.encode(one) + b"\n")


def read(directory: Path, run_id: str) -> list[Spawned]:
    """Those of that run, oldest first. Lines that can't be read are passed over."""
    found = []
    with contextlib.suppress(OSError):
        for line in (directory / SPAWNED_FILE).read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):
                one = msgspec.json.decode(line, type=Spawned)
                if one.run_id == run_id:
                    found.append(one)
    return found


def latest(directory: Path, run_id: str) -> dict[str, Spawned]:
    """The last start of each process whose leader is alive."""
    return {one.id: one for one in read(directory, run_id) if is_alive(one)}


def starts(directory: Path, run_id: str) -> dict[str, int]:
    """How often each process was started."""
    return Counter(one.id for one in read(directory, run_id))


def epochs(directory: Path, run_id: str) -> dict[str, str | None]:
    """Which start of a worker on several nodes the last start of each process belongs to."""
    return {one.id: one.epoch for one in read(directory, run_id)}


def is_alive(one: Spawned) -> bool:
    """Whether that very process runs: the pid with that start time, no zombie."""
    with contextlib.suppress(psutil.Error):
        return start_ticks(one.pid) == one.start_ticks and psutil.Process(one.pid).status() != psutil.STATUS_ZOMBIE
    return False


def session_members(one: Spawned) -> set[int]:
    """Pids of its session, while its leader is alive: afterwards the number could be somebody else's."""
    if not is_alive(one):
        return set()
    found = {one.pid}
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(pid) == one.session:
                found.add(pid)
    return found


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); None when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
