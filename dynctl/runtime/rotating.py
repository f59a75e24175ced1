"""Keeps a run's logs from filling the disk: each that has grown too large is rotated, whoever writes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dynctl.store import rotation
from dynctl.store.log import EventLog
from dynctl.store.run import RunStore

LOOK_S = 2.0


class Rotating:
    """Looks at every log now and then. What can't be rotated is said once."""

    def __init__(self, store: RunStore, events: EventLog) -> None:
        self._store, self._events = store, events
        self._said: set[Path] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            for path in self._grown():
                try:
                    await asyncio.to_thread(rotation.rotate, path)
                    self._said.discard(path)
                except OSError as error:
                    if path not in self._said:
                        self._said.add(path)
                        self._events.add("warning", f"{path.name} can't be rotated", why=error.strerror)

    def _grown(self) -> list[Path]:
        found = []
        for path in (*self._store.logs.glob("*.log"), *self._store.ucx.glob("*.log")):
            try:
                if path.stat().st_size > rotation.LIMIT_BYTES:
                    found.append(path)
            except OSError:
                continue  # gone meanwhile
        return found
