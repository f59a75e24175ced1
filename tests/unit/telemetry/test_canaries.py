"""Canaries are none of the window's figures, whenever the engine's counters are read."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from dynctl.telemetry.scrape import EngineSample
from dynctl.telemetry.window import EngineWindow


def counted(prefills: float, prefill_s: float) -> dict[str, float]:
    return {"prefills": prefills, "prefill_s": prefill_s, "queued": prefills, "queue_s": 0.0}


def at(seconds: float, prefills: float, prefill_s: float) -> EngineSample:
    return msgspec.convert({"at": seconds, **counted(prefills, prefill_s)}, EngineSample)


def window(*samples: EngineSample) -> EngineWindow:
    made = EngineWindow()
    for one in samples:
        made.add(one)
    return made


def canary(made: EngineWindow, now: dict[str, float] | None) -> None:
    made.canary_begins()
    made.canary_ends(now, answered=True)


def grown(made: EngineWindow) -> tuple[float, float]:
    """Prefills, and seconds of them."""
    ends = made.ends()
    assert ends is not None
    return ends[1].prefills - ends[0].prefills, round(ends[1].prefill_s - ends[0].prefill_s, 9)


def test_canaries_do_not_count() -> None:
    made = window(at(1, 10, 5.0))
    canary(made, counted(11, 5.1))
    canary(made, None)
    canary(made, counted(13, 5.3))
    canary(made, counted(13, 5.3))  # counted late
    made.add(at(2, 15, 9.4))
    assert grown(made) == (1, 4)
    canary(made, counted(17, 12.5))  # with a user's of 3 s
    made.add(at(3, 17, 12.5))
    assert grown(made) == (2, 7)


def test_a_canary_that_was_never_alone_counts_as_the_mean() -> None:
    made = window(at(1, 10, 5.0))
    canary(made, counted(14, 9.0))
    made.add(at(2, 14, 9.0))
    assert grown(made) == (3, 3)


def test_counters_may_be_read_before_the_answer_of_a_canary_comes() -> None:
    made = window(at(1, 10, 5.0))
    for second in range(2, 9):
        made.canary_begins()
        made.add(at(second, 9 + second, 5.0))
        made.canary_ends(counted(9 + second, 5.0), answered=True)
    made.add(at(9, 18, 8.0))
    assert grown(made) == (1, 3)


def test_what_may_be_a_canary_is_in_no_sample() -> None:
    made = window(at(1, 10, 5.0), at(2, 11, 7.0))
    made.canary_begins()
    made.add(at(3, 12, 7.1))
    assert grown(made) == (1, 2)


def test_canaries_before_the_first_sample_take_nothing_from_users() -> None:
    """As after a restart, when no user's request has come yet."""
    made = window()
    for number in range(1, 4):
        canary(made, counted(number, 0.0))
    made.add(at(1, 3, 0.0))
    canary(made, None)
    made.add(at(2, 5, 2.0))
    made.add(at(3, 6, 4.0))
    assert grown(made)[0] == 2


def test_a_canary_without_a_token_takes_nothing_from_users() -> None:
    made = window(at(1, 10, 5.0))
    made.canary_begins()
    made.canary_ends(None, answered=False)
    made.add(at(2, 11, 7.0))
    assert grown(made) == (1, 2)


def test_a_restart_forgets_what_was_dynctls_own() -> None:
    made = window(at(1, 1, 1))
    canary(made, counted(5, 2))
    made.add(at(3, 0, 0))
    made.add(at(4, 2, 1))
    assert grown(made)[0] == 2


@given(st.lists(st.sampled_from(["user", "sends", "counts", "answers", "answers unread", "scrape"]), max_size=40))
def test_each_prefill_is_a_users_or_a_canarys(events: list[str]) -> None:
    made = window(at(0, 0, 0.0))
    users = prefills = 0
    sent = computed = False
    for second, event in enumerate([*events, "counts", "answers", "scrape"]):
        if event == "user":
            users, prefills = users + 1, prefills + 1
        elif event == "scrape":
            made.add(at(second, prefills, 0.0))
        elif event == "sends" and not sent:
            sent = True
            made.canary_begins()
        elif event == "counts" and sent and not computed:
            computed, prefills = True, prefills + 1
        elif event.startswith("answers") and computed:
            sent = computed = False
            made.canary_ends(counted(prefills, 0.0) if event == "answers" else None, answered=True)
    assert grown(made)[0] == users
