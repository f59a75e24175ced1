"""The life of one process as a pure state machine: (state, event) -> state. Effects live in the supervisor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dynctl.telemetry.status import ProcessState, RunState

LifeEvent = Literal["spawn", "progress", "proven", "exit", "exhausted", "wait", "stop", "gone"]
"""spawn: executed · progress: first log phase or probe answer · proven: all gates open · exit: ended unasked ·
exhausted: no restart left · wait: waits before a restart · stop: asked to end · gone: ended as asked."""

TRANSITIONS: dict[tuple[ProcessState, LifeEvent], ProcessState] = {
    ("pending", "spawn"): "starting",
    ("pending", "stop"): "stopped",
    ("starting", "progress"): "loading",
    ("starting", "proven"): "ready",
    ("starting", "exit"): "crashed",
    ("starting", "stop"): "stopping",
    ("loading", "progress"): "loading",
    ("loading", "proven"): "ready",
    ("loading", "exit"): "crashed",
    ("loading", "stop"): "stopping",
    ("ready", "progress"): "ready",
    ("ready", "proven"): "ready",
    ("ready", "exit"): "crashed",
    ("ready", "stop"): "stopping",
    ("crashed", "wait"): "backing off",
    ("crashed", "exhausted"): "failed",
    ("crashed", "stop"): "stopped",
    ("backing off", "spawn"): "starting",
    ("backing off", "exhausted"): "failed",
    ("backing off", "stop"): "stopped",
    ("failed", "stop"): "stopped",
    ("stopping", "exit"): "stopped",
    ("stopping", "gone"): "stopped",
    ("stopping", "stop"): "stopping",
    ("stopping", "progress"): "stopping",
    ("stopped", "stop"): "stopped",
    ("stopped", "gone"): "stopped",
}

SERVING: frozenset[ProcessState] = frozenset({"ready"})


def step(state: ProcessState, event: LifeEvent) -> ProcessState:
    """The state after `event`; an event that means nothing in a state leaves it as it is."""
    return TRANSITIONS.get((state, event), state)


def run_state(states: Iterable[ProcessState], *, was_ready: bool, stopping: bool) -> RunState:
    """The run's state from its processes': degraded once any of them no longer serves."""
    now = list(states)
    if all(state == "stopped" for state in now):
        return "stopped"
    if stopping:
        return "stopping"
    if not was_ready:
        return "starting"
    return "ready" if all(state in SERVING for state in now) else "degraded"


def backoff_s(attempt: int, *, first_s: float, cap_s: float) -> float:
    """Seconds to wait before restart number `attempt` (1, 2, ...): doubled each time, capped."""
    return float(min(cap_s, first_s * 2 ** min(attempt - 1, 30)))
