"""The window: what counts, and how it grows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_samples import INF, at, record, window

from dynctl.telemetry.window import EngineWindow, RequestWindow

CUMULATIVE = ("kv_bytes", "transfer_s", "transfers", "queue_s", "queued", "prefill_s", "prefills")


# engines


def test_growth_needs_two_samples() -> None:
    assert EngineWindow().ends() is None
    assert window(at(1)).ends() is None
    first, last = at(1, transfers=2), at(2, transfers=5)
    assert window(first, last).ends() == (first, last)


def test_the_window_reaches_back_just_over_its_length() -> None:
    samples = [at(second, transfers=second) for second in range(0, 200, 2)]
    ends = window(*samples, window_s=60).ends()
    assert ends is not None
    assert (ends[0].at, ends[1].at) == (136, 198)


def test_a_quiet_time_before_does_not_lose_the_growth_after() -> None:
    ends = window(at(0, transfers=1), at(3600, transfers=4)).ends()
    assert ends is not None
    assert ends[1].transfers - ends[0].transfers == 3


@pytest.mark.parametrize("counter", CUMULATIVE)
def test_an_engine_that_restarted_begins_a_new_window(counter: str) -> None:
    """A prefill worker that is pulled from has no transfers of its own: its other counters must tell."""
    made = window(at(1, **{counter: 5.0}), at(2, **{counter: 9.0}), at(3, **{counter: 1.0}))
    assert made.ends() is None
    made.add(at(4, **{counter: 2.5}))
    ends = made.ends()
    assert ends is not None
    assert getattr(ends[1], counter) - getattr(ends[0], counter) == 1.5


def grown(made: EngineWindow, *names: str) -> list[float]:
    ends = made.ends()
    assert ends is not None
    return [round(getattr(ends[1], name) - getattr(ends[0], name), 9) for name in names]


def test_what_happened_while_a_pair_was_proven_does_not_count() -> None:
    made = window(at(1, transfers=1, itl_buckets={0.1: 1, INF: 1}))
    made.proof(at(3, transfers=3, itl_buckets={0.1: 3, INF: 4}), begins=True)
    made.canary_begins()
    made.canary_ends({"prefills": 1, "prefill_s": 1.0, "queued": 1, "queue_s": 0.0}, answered=True)
    made.add(at(3.5, transfers=4, itl_buckets={0.1: 3, INF: 5}))
    made.proof(at(4, transfers=9, itl_buckets={0.1: 9, 0.2: 11, INF: 11}), begins=False)
    made.add(at(5, transfers=10, itl_buckets={0.1: 9, 0.2: 12, INF: 13}))
    assert grown(made, "transfers") == [3]
    old, new = made.ends() or (at(0), at(0))
    buckets = {bound: count - old.itl_buckets.get(bound, 0) for bound, count in new.itl_buckets.items()}
    assert buckets == {0.1: 2, 0.2: 1, INF: 5}


def test_gauges_may_fall() -> None:
    assert window(at(1, running=5, waiting=3), at(2)).ends() is not None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=12))
def test_growth_is_never_negative(values: list[float]) -> None:
    made = EngineWindow()
    for second, value in enumerate(values):
        made.add(at(second, queue_s=value, queued=value))
        if ends := made.ends():
            assert ends[1].queue_s >= ends[0].queue_s


# requests


def test_requests_leave_the_window() -> None:
    made = RequestWindow(60)
    made.add(record(id="old"), now=0)
    made.add(record(id="new"), now=50)
    assert [one.id for one in made.recent(60)] == ["old", "new"]
    assert [one.id for one in made.recent(61)] == ["new"]
    assert made.recent(200) == []


def test_dynctls_own_proofs_do_not_count() -> None:
    made = RequestWindow()
    made.add(record(directed=True), now=1)
    assert (made.recent(1), made.rate_per_s(1)) == ([], 0.0)


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    made = RequestWindow(60)
    for second in range(40):
        made.add(record(), now=second)
    assert made.rate_per_s(39) == pytest.approx(1.1)
    assert made.rate_per_s(100) == 0.0
