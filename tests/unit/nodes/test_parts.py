"""What a worker on several nodes does with its parts: none outlives a start that it belongs to, none joins another."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.nodes.parts import LIVE, Part, follow, free, lost, part, with_epoch
from dynctl.telemetry.status import ProcessState

STATES: tuple[ProcessState, ...] = get_args(ProcessState)
EPOCHS = st.sampled_from([None, "r.1", "r.2"])
UP = Part(epoch="r.1", state="up")


@given(st.sampled_from(STATES), EPOCHS, EPOCHS)
def test_a_part_runs_for_no_start_but_the_wanted_one(
    state: ProcessState, epoch: str | None, wanted: str | None
) -> None:
    does = follow(state, epoch, wanted)
    if state in LIVE:
        assert does == (None if epoch == wanted else "stop")
    else:
        assert does in (None, "start")
    if does == "start":
        assert wanted is not None
        assert (state, epoch != wanted) == ("stopped", True), "nothing may be left of it, and no start is taken twice"


@pytest.mark.parametrize(
    ("told", "taken", "found"),
    [
        ({"p.1": UP, "p.2": UP}, {"p.1", "p.2"}, None),
        ({"p.1": Part(), "p.2": UP}, set(), None),
        ({"p.1": Part(epoch="r.0", state="ending")}, set(), None),
        ({"p.1": Part(epoch="r.1", state="ending")}, set(), "p.1"),
        ({"p.1": UP, "p.2": Part(epoch="r.1", state="gone")}, {"p.1"}, "p.2"),
        ({"p.1": Part()}, {"p.1"}, "p.1"),
        ({}, {"p.1"}, None),
    ],
    ids=["all run", "not begun", "an earlier one ends", "ends", "ended", "its node began anew", "its node is silent"],
)
def test_which_part_takes_the_worker_down(told: dict[str, Part], taken: set[str], found: str | None) -> None:
    assert lost("r.1", taken, told) == found


@given(st.sampled_from(STATES))
def test_a_new_start_waits_for_the_end_of_the_one_before(state: ProcessState) -> None:
    assert free({"p.1": part(state, "r.1")}) == (state in ("pending", "stopped"))


def test_what_is_the_same_in_one_start() -> None:
    argv = ("serve", '{"engine_id":"p.{epoch}"}')
    assert with_epoch(argv, "r.2") == ("serve", '{"engine_id":"p.r.2"}')
    assert with_epoch(("serve", "{}"), None) == ("serve", "{}")
