"""A worker that spans nodes lives and ends as one: what its leader and the parts that follow it have to do. Pure.

The leader's node counts the worker's starts. It tells the others which one is wanted, its epoch; they tell which one
their parts belong to, and whether that has ended. Nothing else is agreed on, so that a cut link needs no catching up.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from dynctl.engines.spec import EPOCH
from dynctl.telemetry.status import ProcessState

LIVE: frozenset[ProcessState] = frozenset({"starting", "loading", "ready", "unhealthy", "draining"})
"""States in which a leader's epoch is wanted, and in which a part belongs to its own."""
FREE: frozenset[ProcessState] = frozenset({"pending", "stopped"})
"""States in which nothing is left of a part."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part as its node tells of it: the epoch it was last started for, and whether it runs, ends or has ended.

    `progress`: rises as its start goes on.
    """

    epoch: str | None = None
    state: Literal["up", "ending", "gone"] = "gone"
    progress: int = 0


def part(state: ProcessState, epoch: str | None, progress: int = 0) -> Part:
    """What is told of a part in that state."""
    return Part(epoch=epoch, state="up" if state in LIVE else "gone" if state in FREE else "ending", progress=progress)


def follow(state: ProcessState, epoch: str | None, wanted: str | None) -> Literal["start", "stop"] | None:
    """What a part has to do for its leader, which wants `wanted` to run; None: nothing, or not yet."""
    if state in LIVE:
        return None if epoch == wanted else "stop"
    return "start" if state == "stopped" and wanted and wanted != epoch else None


def lost(epoch: str, taken: Collection[str], parts: Mapping[str, Part]) -> str | None:
    """The first part that does not run any more though it belonged to that epoch.

    `taken`: parts seen to belong to it. `parts`: all whose nodes have told of them.
    """
    for name, told in parts.items():
        if told.state != "up" if told.epoch == epoch else name in taken:
            return name
    return None


def free(parts: Mapping[str, Part]) -> bool:
    """Whether nothing of an earlier start is left that could meet a new one's."""
    return all(told.state == "gone" for told in parts.values())


def with_epoch(argv: tuple[str, ...], epoch: str | None) -> tuple[str, ...]:
    """The command line of one start."""
    return tuple(word.replace(EPOCH, epoch) for word in argv) if epoch else argv
