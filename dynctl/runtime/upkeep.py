"""What a full disk costs: said in `status` while it lasts, and made up for as soon as there is room again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from dynctl.errors import HostError
from dynctl.runtime.beat import next_beat
from dynctl.runtime.kept import Kept
from dynctl.runtime.picture import Picture
from dynctl.store.log import EventLog
from dynctl.store.run import RunRecord, RunStore

LOOK_S = 1.0
ROOM_BYTES = 1 << 16
"""With less than this left, the next line of a log may be lost."""


class Run(Protocol):
    """What is needed of the supervisor."""

    store: RunStore
    record: RunRecord
    picture: Picture
    events: EventLog


class Upkeep:
    """Looks now and then. Nothing that goes wrong with a disk ends anything; each trouble is said once, and its end."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._marked = False
        self._kept = Kept(run.store, run.events)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await next_beat(LOOK_S)

    def look(self) -> None:
        """One round."""
        self._kept.look()
        run, troubles = self._run, []
        try:
            self._mark_ready()
        except HostError as error:
            troubles.append(error.cause)
        run.events.flush()
        if run.events.trouble:
            troubles.append(f"events are kept in memory only: {run.events.trouble}")
        if _is_full(run.store.logs):
            troubles.append("the disk is full: what processes write to their logs is lost, they serve on")
        before, run.picture.troubles = run.picture.troubles, tuple(troubles)
        for trouble in troubles:
            if trouble not in before:
                run.events.add("warning", trouble)
        if before and not troubles:
            run.events.add("warning", "the run's files can be written again")

    def _mark_ready(self) -> None:
        """A run that serves must not be taken for one that never did."""
        if self._run.picture.was_ready and not self._marked:
            self._run.store.mark_ready(self._run.record.run_id)
            self._marked = True


def _is_full(directory: Path) -> bool:
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < ROOM_BYTES or (found.f_files > 0 and found.f_favail == 0)
