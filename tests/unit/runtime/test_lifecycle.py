"""The life of a process: its table as documented, replayed histories, and what holds of every history."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dynctl.engines.spec import Restart
from dynctl.runtime.lifecycle import (
    _GUARDS,
    HAS_PROCESS,
    JITTER,
    TABLE,
    Life,
    LifeEvent,
    Row,
    Rules,
    backoff_s,
    run_state,
    said,
    step,
)
from dynctl.telemetry.status import ProcessState

STATES: tuple[ProcessState, ...] = get_args(ProcessState)
EVENTS: tuple[LifeEvent, ...] = get_args(LifeEvent)
PAGE = Path(__file__).resolve().parents[3] / "docs" / "supervision.md"
RULES = Rules(restart=Restart(max=2, backoff_s=1, cap_s=60), stall_s=60, stop_grace_s=20)


def as_line(row: Row) -> str:
    return re.sub(r" +", " ", f"| {row.state} | {row.event} | {row.when} | {row.after} | {', '.join(row.does)} |")


def test_the_page_lists_every_transition() -> None:
    lines = [re.sub(r" +", " ", line) for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    start = lines.index("| state | event | if | next state | to be done |")
    assert lines[start + 1 : start + 1 + len(TABLE)] == [as_line(row) for row in TABLE]


def test_every_state_and_event_has_a_row() -> None:
    assert {row.state for row in TABLE} | {row.after for row in TABLE} == set(STATES)
    assert {row.event for row in TABLE} == set(EVENTS)
    assert {row.when for row in TABLE} == set(_GUARDS)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_an_event_that_means_nothing_changes_nothing(state: ProcessState, event: LifeEvent) -> None:
    if not [row for row in TABLE if (row.state, row.event) == (state, event)]:
        life = Life(state=state, attempts=1)
        assert step(life, event, 5.0, RULES) == (life, ())


def replay(history: str, rules: Rules = RULES) -> tuple[Life, list[str]]:
    """`10 exit, 11 cleared`: events at their seconds. The life at the end, and all that was to be done."""
    life = Life()
    done: list[str] = []
    for entry in history.split(", "):
        at, _, event = entry.partition(" ")
        life, actions = step(life, event, float(at), rules, why=f"because of {event}")  # type: ignore[arg-type]
        done += [action.does for action in actions]
    return life, done


UP = "0 start, 1 progress, 10 proven"


def test_a_crash_is_cleared_waited_for_and_restarted() -> None:
    life, done = replay(f"{UP}, 20 exit, 21 cleared")
    assert (life.state, life.attempts, life.wake_at, life.reason) == ("backing off", 1, 22.0, "because of cleared")
    assert done == ["spawn", "prove", "put in", "take out", "clear", "wake"]
    life, done = replay(f"{UP}, 20 exit, 21 cleared, 21.9 tick, 22 tick, 30 proven")
    assert (life.state, life.restarts, life.ready_at) == ("ready", 1, 30.0)
    assert done[6:] == ["keep log", "spawn", "prove", "put in"]


def test_a_crash_loop_ends_after_max_restarts() -> None:
    loop = "20 exit, 21 cleared, 30 tick, 31 exit, 32 cleared, 40 tick, 41 exit"
    life, _ = replay(f"{UP}, {loop}")
    life, actions = step(life, "cleared", 42.0, RULES)
    assert (life.state, life.restarts, actions) == ("failed", 2, ())
    assert life.reason == "because of exit", "the cause outlives the clearing"
    assert said(life, "cleared", 42.0, RULES) == "crash loop: 2 restarts did not help"


def test_a_healthy_interval_gives_all_restarts_back() -> None:
    again = "20 exit, 21 cleared, 22 tick, 30 proven"
    assert replay(f"{UP}, {again}, 89 exit, 89 cleared")[0].attempts == 2
    assert replay(f"{UP}, {again}, 90 exit, 90 cleared")[0].attempts == 1
    assert replay(f"{UP}, {again}, 91 sick, 92 exit, 92 cleared")[0].attempts == 1


def test_without_restarts_the_first_crash_is_the_last() -> None:
    rules = Rules(restart=Restart(max=0))
    life, _ = replay(f"{UP}, 20 exit, 21 cleared", rules)
    assert (life.state, said(life, "cleared", 21.0, rules)) == ("failed", "not restarted")


def test_a_stall_that_ends_by_itself_costs_no_restart() -> None:
    life, done = replay(f"{UP}, 20 sick, 30 sick, 50 tick, 60 well")
    assert (life.state, life.restarts, life.attempts, life.ready_at) == ("ready", 0, 0, 60.0)
    assert done[3:] == ["take out", "wake", "put in"]


def test_a_stall_that_lasts_is_killed() -> None:
    life, done = replay(f"{UP}, 20 sick, 80 tick, 81 exit, 81 cleared")
    assert (life.state, done[3:]) == ("backing off", ["take out", "wake", "clear", "wake"])


def test_an_operators_restart_drains_ends_and_starts_anew() -> None:
    life, done = replay(f"{UP}, 20 restart, 25 drained, 26 exit, 27 cleared")
    assert (life.state, life.restarts, life.attempts, life.again) == ("starting", 1, 0, False)
    assert done[3:] == ["take out", "end", "wake", "clear", "keep log", "spawn", "prove"]


def test_an_end_that_takes_too_long_is_a_kill() -> None:
    life, done = replay(f"{UP}, 20 stop, 39 tick, 40 tick, 41 exit, 42 cleared")
    assert (life.state, done[3:]) == ("stopped", ["take out", "end", "wake", "clear", "clear"])


def test_drained_only_it_stays_out_until_it_may_come_back() -> None:
    assert replay(f"{UP}, 20 drain, 25 drained")[0].state == "draining"
    assert replay(f"{UP}, 20 drain, 25 drained, 30 resume")[0].state == "ready"


def test_a_restarted_partner_is_followed_without_costing_an_attempt() -> None:
    life, done = replay(f"{UP}, 20 partner restarted, 21 exit, 22 cleared, 30 proven")
    assert (life.state, life.attempts, life.restarts) == ("ready", 0, 1)
    assert done[3:] == ["take out", "end", "wake", "clear", "keep log", "spawn", "prove", "put in"]


def test_what_can_not_be_killed_is_not_started_beside_itself() -> None:
    assert replay(f"{UP}, 20 exit, 21 survivor, 22 tick")[0].state == "failed"


def test_what_could_not_be_killed_is_cleared_before_another_takes_its_place() -> None:
    survived = f"{UP}, 20 exit, 21 survivor"
    life, done = replay(f"{survived}, 30 restart")
    assert (life.state, life.again, done[-1]) == ("stopping", True, "clear")
    life, done = replay(f"{survived}, 30 restart, 31 cleared")
    assert (life.state, done[-3:]) == ("starting", ["keep log", "spawn", "prove"])
    assert replay(f"{survived}, 30 start, 31 survivor")[0].state == "failed"


def test_an_adopted_process_is_proven_but_not_spawned() -> None:
    life, done = replay("0 adopt, 1 proven")
    assert (life.state, life.restarts, done) == ("ready", 0, ["prove", "put in"])


class Lives(RuleBasedStateMachine):
    """A process beside its life: spawned when asked, ended by signals or by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.life, self.now = Life(), 0.0
        self.alive = self.clearing = self.routed = False
        self.spawns = 0

    def feed(self, event: LifeEvent, jitter: float = 0.0) -> None:
        before = self.life
        self.life, actions = step(before, event, self.now, RULES, jitter=jitter)
        for action in actions:
            match action.does:
                case "spawn":
                    assert not self.alive, "two at once"
                    self.alive, self.spawns = True, self.spawns + 1
                case "clear":
                    self.clearing = True
                case "put in":
                    self.routed = True
                case "take out":
                    self.routed = False
                case "wake":
                    assert action.at is not None
                    assert action.at > self.now
        if self.life.state == "failed" != before.state:
            assert event == "survivor" or before.attempts == RULES.restart.max

    @rule(event=st.sampled_from(EVENTS), jitter=st.floats(0, 1))
    def anything(self, event: LifeEvent, jitter: float) -> None:
        if event in {"exit", "cleared", "survivor", "adopt", "gone"}:
            return  # facts, that come from the rules below
        self.feed(event, jitter)

    @rule()
    def it_ends(self) -> None:
        if self.alive:
            self.alive = False
            self.feed("exit")

    @rule()
    def it_is_cleared(self) -> None:
        if self.clearing:
            self.alive = self.clearing = False
            self.feed("cleared")

    @rule()
    def it_can_not_be_killed(self) -> None:
        if self.clearing and self.alive:
            self.clearing = False
            self.feed("survivor")

    @rule()
    def it_is_adopted(self) -> None:
        if self.life.state == "pending":
            self.alive, self.spawns = True, self.spawns + 1
            self.feed("adopt")

    @rule()
    def the_run_ends(self) -> None:
        self.feed("stop")
        self.alive = self.clearing = False
        self.feed("gone")

    @rule()
    def it_comes_up(self) -> None:
        if self.alive:
            self.feed("proven")

    @rule(seconds=st.floats(0.1, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.feed("tick")

    @invariant()
    def only_what_is_ready_is_served(self) -> None:
        assert self.routed == (self.life.state == "ready")

    @invariant()
    def what_has_no_process_says_so(self) -> None:
        assert not self.alive or self.life.state in HAS_PROCESS or self.life.state in {"crashed", "failed", "stopped"}

    @invariant()
    def attempts_stay_within_the_rule(self) -> None:
        assert 0 <= self.life.attempts <= RULES.restart.max
        assert self.life.restarts <= self.spawns

    @invariant()
    def it_can_always_be_stopped(self) -> None:
        life, _ = step(self.life, "stop", self.now, RULES)
        ends: tuple[LifeEvent, ...] = ("exit", "cleared")
        for event in ends:
            life, _ = step(life, event, self.now, RULES)
        assert life.state == "stopped"
        assert step(step(self.life, "stop", self.now, RULES)[0], "gone", self.now, RULES)[0].state == "stopped"


TestLives = Lives.TestCase
TestLives.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)


@pytest.mark.parametrize(("states", "was_ready", "stopping", "expected"), [
    ([], False, False, "stopped"),
    (["pending", "pending"], False, False, "starting"),
    (["ready", "loading"], False, False, "starting"),
    (["ready", "ready"], False, False, "starting"),  # served, but not yet proven
    (["ready", "ready"], True, False, "ready"),
    (["ready", "crashed"], True, False, "degraded"),
    (["ready", "backing off"], True, False, "degraded"),
    (["ready", "unhealthy"], True, False, "degraded"),
    (["ready", "failed"], True, False, "degraded"),
    (["ready", "stopped"], True, False, "degraded"),
    (["loading", "stopping"], False, True, "stopping"),
    (["ready", "stopped"], True, True, "stopping"),
    (["stopped", "stopped"], True, True, "stopped"),
    (["stopped", "stopped"], True, False, "stopped"),
])  # fmt: skip
def test_the_run_from_its_processes(states: list[ProcessState], was_ready: bool, stopping: bool, expected: str) -> None:
    assert run_state(states, was_ready=was_ready, stopping=stopping) == expected


def test_waits_double_up_to_the_cap() -> None:
    assert [backoff_s(attempt, first_s=1, cap_s=10) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert backoff_s(1, first_s=0.5, cap_s=60) == 0.5
    assert backoff_s(10**9, first_s=1, cap_s=60) == 60


def test_jitter_lengthens_a_wait() -> None:
    assert backoff_s(2, first_s=1, cap_s=60, jitter=1) == 2 * (1 + JITTER)
    assert 2 < backoff_s(2, first_s=1, cap_s=60, jitter=0.5) < 2 * (1 + JITTER)
