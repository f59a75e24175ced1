"""What the run keeps on disk, watched while it runs: a file that is lost or cut short is written anew."""

from __future__ import annotations

import os

from dynctl.errors import HostError
from dynctl.store.log import EventLog
from dynctl.store.paths import private_dir
from dynctl.store.run import READY_FILE, SEGMENTS_FILE, SPAWNED_FILE, TOPOLOGY_FILE, RunStore, write_private

NAMES = (
    "run.json",
    "plan.json",
    TOPOLOGY_FILE,
    "secrets.json",
    "token",
    "secret",
    SPAWNED_FILE,
    SEGMENTS_FILE,
    READY_FILE,
)

Stamp = tuple[int, int, int]


class Kept:
    """Without these files the run serves on, but `status`, `down` and `up NAME` would not know it any more."""

    def __init__(self, store: RunStore, events: EventLog) -> None:
        self._store, self._events = store, events
        self._known: dict[str, bytes] = {}
        self._stamps: dict[str, Stamp | None] = {}
        self._failed: str | None = None

    def look(self) -> None:
        """Writes what is damaged. What can't be written is said once."""
        damaged = [name for name in NAMES if self._damaged(name)]
        if not damaged:
            return
        gone = not self._store.logs.is_dir()
        try:
            for directory in (self._store.dir, self._store.logs, self._store.ucx):
                private_dir(directory)
            for name in damaged:
                write_private(self._store.dir / name, self._known[name])
            os.chdir(self._store.dir)  # a directory that was removed is no place to start processes in
            self._events.reopen()
        except (HostError, OSError) as error:
            if self._failed != str(error):
                self._failed = str(error)
                self._events.add("warning", "files of the run are lost and can't be written anew", why=str(error))
            return
        self._failed = None
        lost = "; what its processes log until they are restarted is lost" if gone else ""
        self._events.add("warning", f"{', '.join(damaged)} lost or cut short: written anew{lost}")

    def _damaged(self, name: str) -> bool:
        """Whether it is now only the beginning of what it was, or gone. Any other content was meant."""
        path = self._store.dir / name
        try:
            found = path.stat()
            stamp: Stamp | None = (found.st_ino, found.st_size, found.st_mtime_ns)
            if stamp == self._stamps.get(name):
                return False
            content = path.read_bytes()
        except FileNotFoundError:
            stamp, content = None, b""
        except OSError:
            return False  # it can't be read now; that says nothing of it
        known = self._known.get(name, b"")
        if content != known and known.startswith(content):
            return True
        self._known[name], self._stamps[name] = content, stamp
        return False
