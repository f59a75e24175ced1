"""What is tried again, and the budget that bounds it."""

from __future__ import annotations

import random
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.frontend.retry import (
    MAX_ANSWERS,
    MAX_PREFILLS,
    MAX_SILENT,
    Budget,
    Reason,
    RetryLimits,
    Trail,
    after_answer,
    after_prefill,
)


def yes() -> bool:
    return True


def no() -> bool:
    return False


def test_a_worker_that_dies_takes_a_burst_and_an_outage_only_the_ratio() -> None:
    budget = Budget(RetryLimits(ratio=0.2, burst=10))
    assert sum(budget.spend() for _ in range(50)) == 10
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert spent == pytest.approx(200, abs=1)


def test_a_budget_fills_up_to_its_burst() -> None:
    budget = Budget(RetryLimits(ratio=0.5, burst=3))
    for _ in range(100):
        budget.earn()
    assert sum(budget.spend() for _ in range(10)) == 3


@given(st.integers(0, 2**32), st.floats(0, 1), st.integers(0, 50))
def test_retries_never_exceed_what_was_earned(seed: int, ratio: float, burst: int) -> None:
    chance = random.Random(seed)
    budget = Budget(RetryLimits(ratio=ratio, burst=burst))
    requests = retries = 0
    for _ in range(300):
        if chance.random() < 0.5:
            budget.earn()
            requests += 1
        retries += budget.spend()
        assert retries <= burst + ratio * requests + 1e-6


@pytest.mark.parametrize("status", [None, 500, 503])
def test_a_prefill_leg_is_tried_once_more_and_then_decode_serves_alone(status: int | None) -> None:
    trail = Trail()
    assert after_prefill(trail, "p0", status, others=True, spend=yes) == "again"
    assert after_prefill(trail, "p1", status, others=True, spend=yes) == "alone"
    assert trail.prefills == ["p0", "p1"]
    assert after_prefill(Trail(), "p0", status, others=False, spend=yes) == "alone"
    assert after_prefill(Trail(), "p0", status, others=True, spend=no) == "alone"


def test_the_clients_own_error_is_the_clients() -> None:
    trail = Trail()
    assert after_prefill(trail, "p0", 404, others=True, spend=yes) == "client"
    assert trail.prefills == []


def answer(trail: Trail, worker: str, reason: Reason, **changes: object) -> str:
    facts: dict[str, object] = {"prefill": "p0", "prefill_serves": True, "others": True, "spend": yes, **changes}
    return after_answer(trail, worker, reason, **facts)  # type: ignore[arg-type]


def test_two_workers_may_end_without_an_answer_and_no_more() -> None:
    trail = Trail()
    assert answer(trail, "d0", "closed") == "again"
    assert answer(trail, "d1", "stale") == "give up"


def test_without_another_worker_only_a_lost_kv_cache_is_made_again() -> None:
    assert answer(Trail(), "d0", "closed", others=False) == "give up"
    assert answer(Trail(), "d0", "timeout", others=False) == "give up"
    trail = Trail()
    assert answer(trail, "d0", "engine_error", others=False) == "again"
    assert (trail.prefills, trail.lost, trail.same) == (["p0"], True, True)
    assert answer(trail, "d0", "engine_error", others=False, prefill=None) == "give up"


def test_a_prefill_that_serves_is_not_blamed_while_another_decode_can_be_asked() -> None:
    trail = Trail()
    assert answer(trail, "d0", "engine_error") == "again"
    assert trail.prefills == []
    assert answer(trail, "d1", "engine_error", others=False) == "again"
    assert trail.prefills == ["p0"]


def test_only_a_dead_prefill_makes_a_retry_free() -> None:
    assert answer(Trail(), "d0", "engine_error", prefill_serves=False, spend=no) == "again"
    assert answer(Trail(), "d0", "engine_error", spend=no) == "no budget"
    assert answer(Trail(), "d0", "closed", prefill_serves=False, spend=no) == "no budget"


FACTS = st.tuples(
    st.sampled_from(get_args(Reason)), st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 3)
)


@given(st.lists(FACTS, min_size=5, max_size=10))
def test_every_history_of_failures_ends(history: list[tuple[Reason, bool, bool, bool, bool, int]]) -> None:
    trail = Trail()
    tries = 0
    for reason, handed_over, serves, others, budget, number in history:
        tries += 1
        prefill = f"p{number}" if handed_over and len(trail.prefills) < MAX_PREFILLS else None
        verdict = after_answer(
            trail,
            f"d{number}",
            reason,
            prefill=prefill,
            prefill_serves=serves,
            others=others,
            spend=yes if budget else no,
        )
        if verdict != "again":
            break
    assert tries <= MAX_ANSWERS
    assert trail.silent <= MAX_SILENT
