"""Keeps a run's logs from filling the disk: each that has grown too large is rotated, whoever writes it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from dynctl.runtime.beat import next_beat
from dynctl.store import rotation
from dynctl.store.log import EventLog
from dynctl.store.run import RunStore

LOOK_S = 2.0
AGAIN_S = 30.0
"""So long after it failed: a quota shows only when much has been copied."""


class Rotating:
    """Looks at every log now and then. What can't be rotated is said once, and tried again later."""

    def __init__(self, store: RunStore, events: EventLog) -> None:
        self._store, self._events = store, events
        self._later: dict[Path, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await next_beat(LOOK_S)
            for path in self._grown():
                if time.monotonic() >= self._later.get(path, 0.0):
                    await self._rotate(path)

    async def _rotate(self, path: Path) -> None:
        try:
            await asyncio.to_thread(rotation.rotate, path)
        except OSError as error:
            if path not in self._later:
                self._events.add("warning", f"{path.name} can't be rotated", why=error.strerror)
            self._later[path] = time.monotonic() + AGAIN_S
        else:
            self._later.pop(path, None)

    def _grown(self) -> list[Path]:
        found = []
        for directory in (self._store.logs, self._store.ucx):
            with contextlib.suppress(OSError), os.scandir(directory) as entries:  # far cheaper than Path.glob
                for entry in entries:
                    with contextlib.suppress(OSError):  # gone meanwhile
                        if entry.name.endswith(".log") and entry.stat().st_size > rotation.LIMIT_BYTES:
                            found.append(Path(entry.path))
        return found
