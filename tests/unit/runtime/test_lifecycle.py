"""The life of a process and of a run, as a table."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.runtime.lifecycle import TRANSITIONS, LifeEvent, backoff_s, run_state, step
from dynctl.telemetry.status import ProcessState

STATES: tuple[ProcessState, ...] = get_args(ProcessState)
EVENTS: tuple[LifeEvent, ...] = get_args(LifeEvent)

TABLE = """
pending      spawn      starting
pending      stop       stopped
starting     progress   loading
starting     proven     ready
starting     exit       crashed
starting     stop       stopping
loading      progress   loading
loading      proven     ready
loading      exit       crashed
loading      stop       stopping
ready        progress   ready
ready        proven     ready
ready        exit       crashed
ready        stop       stopping
crashed      wait       backing_off
crashed      exhausted  failed
crashed      stop       stopped
backing_off  spawn      starting
backing_off  exhausted  failed
backing_off  stop       stopped
failed       stop       stopped
stopping     exit       stopped
stopping     gone       stopped
stopping     stop       stopping
stopping     progress   stopping
stopped      stop       stopped
stopped      gone       stopped
"""
ROWS = [line.replace("_", " ").split("  ") for line in TABLE.split("\n") if line]
ROWS = [[cell.strip() for cell in row if cell.strip()] for row in ROWS]


@pytest.mark.parametrize(("state", "event", "after"), ROWS)
def test_transitions(state: ProcessState, event: LifeEvent, after: ProcessState) -> None:
    assert step(state, event) == after


def test_there_are_no_other_transitions() -> None:
    assert {(state, event): after for (state, event), after in TRANSITIONS.items()} == {
        (state, event): after for state, event, after in ROWS
    }


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, EVENTS)))
def test_an_event_that_means_nothing_changes_nothing(state: ProcessState, event: LifeEvent) -> None:
    if (state, event) not in TRANSITIONS:
        assert step(state, event) == state


@settings(deadline=None)
@given(st.lists(st.sampled_from(EVENTS)))
def test_stopped_is_two_events_from_anywhere(events: list[LifeEvent]) -> None:
    state: ProcessState = "pending"
    for event in events:
        state = step(state, event)
        assert state in STATES
        assert step(step(state, "stop"), "gone") == "stopped"


@settings(deadline=None)
@given(st.lists(st.sampled_from(EVENTS)))
def test_what_has_stopped_stays_stopped(events: list[LifeEvent]) -> None:
    state: ProcessState = "stopped"
    for event in events:
        state = step(state, event)
    assert state == "stopped"


@settings(deadline=None)
@given(st.lists(st.sampled_from(EVENTS)))
def test_only_a_proof_makes_ready(events: list[LifeEvent]) -> None:
    state: ProcessState = "pending"
    for event in events:
        before, state = state, step(state, event)
        assert state != "ready" or before == "ready" or event == "proven"


@pytest.mark.parametrize(("states", "was_ready", "stopping", "expected"), [
    ([], False, False, "stopped"),
    (["pending", "pending"], False, False, "starting"),
    (["ready", "loading"], False, False, "starting"),
    (["ready", "ready"], False, False, "starting"),  # served, but not yet proven
    (["ready", "ready"], True, False, "ready"),
    (["ready", "crashed"], True, False, "degraded"),
    (["ready", "backing off"], True, False, "degraded"),
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
