"""Who is admitted when: the fair queue as such, and the waiting around it."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.frontend.admission import Admission, AdmissionLimits, retry_after_s
from dynctl.frontend.errors import Failure
from dynctl.frontend.fair import FairQueue


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers()), max_size=40))
def test_all_get_their_turn_and_each_tenant_in_its_own_order(put: list[tuple[bytes, int]]) -> None:
    queue: FairQueue[tuple[bytes, int]] = FairQueue()
    for item in put:
        queue.put(item[0], item)
    taken = list(iter(queue.take, None))
    assert sorted(taken) == sorted(put)
    assert len(queue) == 0
    for tenant in (b"a", b"b", b"c"):
        assert [item for item in taken if item[0] == tenant] == [item for item in put if item[0] == tenant]


def test_a_tenant_with_one_request_waits_for_no_crowd() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.put(b"loud", f"loud {number}")
    queue.put(b"quiet", "quiet")
    assert [queue.take() for _ in range(3)] == ["loud 0", "quiet", "loud 1"]


def test_what_waits_no_longer_is_passed_over() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.put(b"a", "one")
    queue.put(b"a", "two")
    assert queue.remove(b"a", "one")
    assert not queue.remove(b"a", "one")
    assert not queue.remove(b"b", "two")
    assert (queue.take(), queue.take()) == ("two", None)


def test_the_wait_follows_from_the_rate() -> None:
    assert retry_after_s(10, deque(), 5.0) == 1
    assert retry_after_s(39, deque([0.0, 1.0, 2.0, 3.0, 4.0]), 5.0) == 40
    assert retry_after_s(10_000, deque([0.0, 5.0]), 5.0) == 60
    assert retry_after_s(0, deque([4.9, 5.0]), 5.0) == 1


def admission(running: int, queue: int = 8, wait_s: float = 60.0) -> Admission:
    return Admission(AdmissionLimits(running=running, queue=queue, wait_s=wait_s), lambda: 0.0)


async def test_as_many_run_as_may_and_the_next_follows_an_end() -> None:
    made = admission(2)
    await made.enter(b"a")
    await made.enter(b"a")
    waiting = asyncio.create_task(made.enter(b"a"))
    await asyncio.sleep(0)
    assert not waiting.done()
    made.leave()
    await waiting
    assert made.running == 2
    for _ in range(2):
        made.leave()
    assert made.running == 0


async def test_a_full_queue_refuses_at_once() -> None:
    made = admission(1, queue=0)
    await made.enter(b"a")
    with pytest.raises(Failure) as caught:
        await made.enter(b"a")
    assert caught.value.status == 429
    assert caught.value.headers == [(b"retry-after", b"1")]


async def test_who_waits_too_long_is_refused_and_takes_no_turn() -> None:
    made = admission(1, wait_s=0.01)
    await made.enter(b"a")
    with pytest.raises(Failure) as caught:
        await made.enter(b"a")
    assert caught.value.status == 503
    made.leave()
    assert made.running == 0


@pytest.mark.parametrize("when", ["before", "just before", "after"])
async def test_a_client_that_leaves_takes_no_turn(when: str) -> None:
    """It leaves before, just before or after its turn comes."""
    made = admission(1)
    await made.enter(b"a")
    waiting = asyncio.create_task(made.enter(b"a"))
    await asyncio.sleep(0)
    if when == "after":
        made.leave()
    waiting.cancel()
    if when == "just before":
        made.leave()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    if when == "before":
        made.leave()
    assert made.running == 0
