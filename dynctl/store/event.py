"""The typed event log: every change of state, who made it, when and why. One JSON object per line."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

EventKind = Literal[
    "run.state",  # the run changed state
    "process.state",  # a process changed state
    "process.phase",  # a starting process entered a phase ("loading weights")
    "gate",  # a ready gate opened
    "pair",  # a prefill-decode pair was proven, or failed
    "verify",  # the outcome of token verification
    "request",  # one request served (only with `up --verbose`)
    "node",  # another node of the run was met, was lost, or ends
    "health",  # the frontend's health changed
    "operation",  # a step of what an operator asked for (`restart`, `drain`, `scale`)
    "warning",
    "error",
]


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. `at` is wall time in seconds since the epoch; `seq` rises by one within a run."""

    seq: int
    at: float
    kind: EventKind
    message: str
    who: str = "supervisor"
    why: str | None = None
    process: str | None = None
    state: str | None = None
    phase: str | None = None
    data: dict[str, Any] = {}
