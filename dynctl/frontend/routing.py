"""Which worker gets a request: pure functions over a snapshot."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dynctl.http.origin import Origin


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the router knows it."""

    id: str
    role: str
    origin: Origin
    state: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy may look at: the workers that may be chosen, and how many choices were made in this pool before."""

    candidates: tuple[Worker, ...]
    turn: int


Policy = Callable[[Snapshot], Worker | None]


def round_robin(snapshot: Snapshot) -> Worker | None:
    """Each candidate in turn; None where there is none."""
    if not snapshot.candidates:
        return None
    return snapshot.candidates[snapshot.turn % len(snapshot.candidates)]
