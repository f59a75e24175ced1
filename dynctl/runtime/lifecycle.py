"""The life of one process as a pure state machine: (life, event, now) -> (life, actions). Effects are the supervisor's.

`TABLE` is the whole of it: docs/supervision.md lists the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

import msgspec

from dynctl.engines.spec import Restart
from dynctl.telemetry.status import ProcessState, RunState

LifeEvent = Literal[
    "start",
    "adopt",
    "progress",
    "proven",
    "exit",
    "broken",
    "sick",
    "well",
    "cleared",
    "survivor",
    "tick",
    "drain",
    "resume",
    "drained",
    "restart",
    "partner restarted",
    "stop",
    "gone",
]
"""start, stop, drain, resume, restart: asked for · adopt: a process that already runs is taken over · progress: first
log phase or probe answer · proven: all gates open · exit: the process ended · broken: it can't serve any more although
it lives (its start failed, a vital child ended) · sick, well: a health check failed, or is good again · cleared:
nothing of it is left · survivor: something of it can't be killed · tick: time has passed · drained: nothing is in
flight any more · partner restarted: another process has, and the engine then needs this one anew · gone: ended with
the run."""

Does = Literal["spawn", "prove", "keep log", "take out", "put in", "end", "clear", "wake"]
"""spawn: execute it · prove: open its gates and prove its pairs · keep log: the log so far becomes `.1` · take out,
put in: the frontend is told, at once · end: SIGTERM, orderly · clear: SIGKILL to the whole tree, then proof that
nothing is left · wake: a `tick` at `at`."""

HAS_PROCESS: frozenset[ProcessState] = frozenset(
    {"starting", "loading", "ready", "unhealthy", "draining", "stopping"},
)
SERVING: frozenset[ProcessState] = frozenset({"ready"})


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What decides: the restart rule, how long it may be unhealthy and how long an orderly end may take, in seconds.

    `follows`: part of a worker on several nodes, which is started again as a whole by its leader.
    """

    restart: Restart = Restart()
    stall_s: float = 60.0
    stop_grace_s: float = 20.0
    follows: bool = False


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What decisions need. Times are monotonic seconds.

    `attempts`: restarts since it was last healthy for long; `restarts`: all of them; `ready_at`: since when it serves
    without a break; `wake_at`: when a `tick` may change something; `again`: asked to be started again once it ended;
    `reason`: why it is in its state, where there is something to say.
    """

    state: ProcessState = "pending"
    attempts: int = 0
    restarts: int = 0
    ready_at: float | None = None
    wake_at: float | None = None
    again: bool = False
    reason: str | None = None


class Action(msgspec.Struct, frozen=True):
    """Something to be done, in order; `at` is the time of a `wake`."""

    does: Does
    at: float | None = None


class Row(NamedTuple):
    """One transition; of several for a state and event the first whose condition holds is taken."""

    state: ProcessState
    event: LifeEvent
    when: str
    after: ProcessState
    does: tuple[Does, ...] = ()


_DUE, _AGAIN = "its time has come", "it is to be started again"
_FOLLOWS = "it follows a leader"
_LEFT, _NONE_LEFT = "restarts are left", "no restart is left"
_UP: tuple[ProcessState, ...] = ("starting", "loading")
_IN: tuple[ProcessState, ...] = ("ready", "unhealthy", "draining")


def _rows() -> Iterable[Row]:
    yield Row("pending", "start", "", "starting", ("spawn", "prove"))
    yield Row("pending", "adopt", "", "loading", ("prove",))
    yield Row("pending", "stop", "", "stopped")
    yield Row("starting", "progress", "", "loading")
    for state in _UP:
        yield Row(state, "proven", "", "ready", ("put in",))
    yield Row("ready", "sick", "", "unhealthy", ("take out", "wake"))
    yield Row("ready", "drain", "", "draining", ("take out",))
    yield Row("ready", "restart", "", "draining", ("take out",))
    yield Row("unhealthy", "well", "", "ready", ("put in",))
    yield Row("unhealthy", "tick", _DUE, "crashed", ("clear",))
    yield Row("unhealthy", "drain", "", "draining")
    yield Row("unhealthy", "restart", "", "stopping", ("end", "wake"))
    yield Row("draining", "drained", _AGAIN, "stopping", ("end", "wake"))
    yield Row("draining", "resume", "", "ready", ("put in",))
    yield Row("draining", "restart", "", "stopping", ("end", "wake"))
    for state in _UP:
        yield Row(state, "restart", "", "stopping", ("end", "wake"))
    for state in (*_UP, *_IN):
        out: tuple[Does, ...] = ("take out",) if state == "ready" else ()
        after: ProcessState = "stopping" if state == "draining" else "crashed"  # what was taken out stays down
        yield Row(state, "exit", "", after, (*out, "clear"))
        yield Row(state, "broken", "", after, (*out, "clear"))
        yield Row(state, "partner restarted", "", "stopping", (*out, "end", "wake"))
        yield Row(state, "stop", "", "stopping", (*out, "end", "wake"))
    yield Row("stopping", "tick", _DUE, "stopping", ("clear",))
    yield Row("stopping", "exit", "", "stopping", ("clear",))
    yield Row("stopping", "cleared", _AGAIN, "starting", ("keep log", "spawn", "prove"))
    yield Row("stopping", "cleared", "", "stopped")
    yield Row("stopping", "survivor", "", "failed")
    yield Row("stopping", "restart", "", "stopping")
    yield Row("stopping", "stop", "", "stopping")
    yield Row("stopping", "gone", "", "stopped")
    yield Row("crashed", "cleared", _FOLLOWS, "stopped")
    yield Row("crashed", "cleared", _LEFT, "backing off", ("wake",))
    yield Row("crashed", "cleared", _NONE_LEFT, "failed")
    yield Row("crashed", "survivor", "", "failed")
    yield Row("crashed", "stop", "", "stopping", ("clear",))
    yield Row("crashed", "gone", "", "stopped")
    yield Row("backing off", "tick", _DUE, "starting", ("keep log", "spawn", "prove"))
    yield Row("backing off", "start", "", "starting", ("keep log", "spawn", "prove"))
    yield Row("backing off", "restart", "", "starting", ("keep log", "spawn", "prove"))
    yield Row("backing off", "stop", "", "stopped")
    asked: tuple[LifeEvent, ...] = ("start", "restart")
    for event in asked:
        yield Row("stopped", event, "", "starting", ("keep log", "spawn", "prove"))
    for event in (*asked, "stop"):  # something of it may still be alive
        yield Row("failed", event, "", "stopping", ("clear",))


TABLE: tuple[Row, ...] = tuple(_rows())
_BY_KEY: dict[tuple[ProcessState, LifeEvent], list[Row]] = {}
for _row in TABLE:
    _BY_KEY.setdefault((_row.state, _row.event), []).append(_row)

_Guard = Callable[[Life, float, Rules], bool]
_GUARDS: dict[str, _Guard] = {
    "": lambda life, now, rules: True,
    _DUE: lambda life, now, rules: life.wake_at is not None and now >= life.wake_at,
    _AGAIN: lambda life, now, rules: life.again,
    _FOLLOWS: lambda life, now, rules: rules.follows,
    _LEFT: lambda life, now, rules: life.attempts < rules.restart.max,
    _NONE_LEFT: lambda life, now, rules: life.attempts >= rules.restart.max,
}


def step(
    life: Life, event: LifeEvent, now: float, rules: Rules, *, why: str | None = None, jitter: float = 0.0
) -> tuple[Life, tuple[Action, ...]]:
    """The life after `event` and what is to be done; an event that means nothing in a state changes nothing.

    `jitter`: a random number from 0 to 1, which lengthens the wait before a restart by up to a quarter.
    """
    row = next((row for row in _BY_KEY.get((life.state, event), ()) if _GUARDS[row.when](life, now, rules)), None)
    if row is None:
        return life, ()
    after = _counted(life, row, now, rules, why, jitter)
    return after, tuple(Action(does, after.wake_at if does == "wake" else None) for does in row.does)


def _counted(life: Life, row: Row, now: float, rules: Rules, why: str | None, jitter: float) -> Life:
    """`life` in the row's next state, with what is counted and remembered brought up to date."""
    attempts, restarts, again = life.attempts, life.restarts, life.again
    reason, wake_at = why if row.after != life.state or why else life.reason, life.wake_at
    if life.ready_at is not None and row.after != "ready" and now - life.ready_at >= rules.restart.cap_s:
        attempts = 0
    match row.event:
        case "restart" | "partner restarted":
            attempts, again = 0, True
        case "stop" | "drain" | "resume":
            again = False
        case "start":
            attempts, again = 0, True
    if row.after == "starting" and "spawn" in row.does:
        restarts, again = restarts + (row.state != "pending"), False
    if row.after == "backing off":
        attempts += 1
        rule = rules.restart
        wake_at = now + backoff_s(attempts, first_s=rule.backoff_s, cap_s=rule.cap_s, jitter=jitter)
        reason = reason or life.reason
    elif row.after == "unhealthy":
        wake_at = now + rules.stall_s
    elif "wake" in row.does:
        wake_at = now + rules.stop_grace_s
    elif row.after != row.state or row.event == "tick":
        wake_at = None
    if row.after == "failed":
        reason = reason or life.reason
    ready_at = (life.ready_at if row.state == "ready" else now) if row.after == "ready" else None
    return Life(
        state=row.after,
        attempts=attempts,
        restarts=restarts,
        ready_at=ready_at,
        wake_at=wake_at,
        again=again,
        reason=reason,
    )


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


JITTER = 0.25
"""The longest part of a wait by which jitter lengthens it: workers that died together don't return together."""


def backoff_s(attempt: int, *, first_s: float, cap_s: float, jitter: float = 0.0) -> float:
    """Seconds to wait before restart number `attempt` (1, 2, ...): doubled each time, capped, lengthened by jitter."""
    return float(min(cap_s, first_s * 2 ** min(attempt - 1, 30))) * (1 + JITTER * jitter)


def said(life: Life, event: LifeEvent, now: float, rules: Rules) -> str:
    """What `event` has made of that life, in words."""
    match life.state:
        case "backing off" if life.wake_at is not None:
            return f"restart {life.attempts} of {rules.restart.max} in {life.wake_at - now:.2g} s"
        case "failed" if event == "survivor":
            return "not restarted: something of it can't be killed"
        case "failed":
            return f"crash loop: {life.attempts} restarts did not help" if life.attempts else "not restarted"
        case "ready":
            return "ready again"
        case "crashed":
            return "given up" if event in {"broken", "tick"} else "died"
        case "stopping":
            return "stopping, to be started again" if life.again else "stopping"
        case "stopped":
            return "ended"
    return life.state
