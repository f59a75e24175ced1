"""Admission over several processes: one limit, and each process's turn for the next place."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from dynctl.frontend.admission import Admission, AdmissionLimits
from dynctl.frontend.board import Board
from dynctl.frontend.errors import Failure
from dynctl.frontend.places import SharedPlaces

PATIENCE_S = 20.0


def boards(count: int) -> list[Board]:
    first = Board.made(count)
    return [first, *(Board(os.dup(first.descriptor), number, count) for number in range(1, count))]


def admissions(found: list[Board], running: int, queue: int = 256, *, told: bool = True) -> list[Admission]:
    """One for each process, where `told` each hears of the others."""
    made: list[Admission] = []

    def tell() -> None:
        for one in made if told else ():
            asyncio.get_running_loop().call_soon(one.look)

    limits = AdmissionLimits(running=running, queue=queue, wait_s=PATIENCE_S)
    made += [Admission(limits, lambda: 0.0, SharedPlaces(running, board, tell)) for board in found]
    return made


async def queued(where: Admission, order: list[str], name: str) -> asyncio.Task[None]:
    """A request that waits there, and notes its turn."""

    async def request() -> None:
        await where.enter(b"a")
        order.append(name)

    task = asyncio.create_task(request())
    await asyncio.sleep(0)
    return task


async def test_processes_that_have_some_waiting_take_turns() -> None:
    here, there = admissions(boards(2), 1)
    await here.enter(b"a")
    order: list[str] = []
    waiting = [await queued(here, order, f"here {number}") for number in range(3)]
    waiting.append(await queued(there, order, "there"))
    running = here
    for turns in range(1, 5):
        running.leave()
        async with asyncio.timeout(PATIENCE_S):
            while len(order) < turns:
                await asyncio.sleep(0)
        running = there if order[-1] == "there" else here
    assert order == ["here 0", "there", "here 1", "here 2"]
    await asyncio.gather(*waiting)
    running.leave()
    assert (here.running, there.running) == (0, 0)


@pytest.mark.parametrize("why", ["the other does not come", "the holder died"])
async def test_a_place_is_found_without_a_word_from_another(why: str) -> None:
    found = boards(2)
    here, there = admissions(found, 1, told=False)
    order: list[str] = []
    holder = there if why == "the holder died" else here
    await holder.enter(b"a")
    waiting = [await queued(here, order, "here")]
    if why == "the holder died":
        found[0].clear(1)
    else:
        found[1].write("since", 1)  # it waits for longer than any, and never looks
        here.leave()
        assert order == []
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*waiting)
    assert order == ["here"]


async def test_the_room_to_wait_is_that_of_all() -> None:
    here, there = admissions(boards(2), 1, queue=1)
    await here.enter(b"a")
    waiting = await queued(here, [], "here")
    with pytest.raises(Failure) as caught:
        await there.enter(b"a")
    assert caught.value.status == 429
    here.leave()
    await waiting
    here.leave()
    await there.enter(b"a")


async def test_who_no_longer_waits_keeps_no_turn() -> None:
    found = boards(2)
    here, there = admissions(found, 1)
    await here.enter(b"a")
    waiting = await queued(there, [], "there")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    here.leave()
    await here.enter(b"a")
    assert here.running == 1
    assert [found[0].read(line) for line in ("running", "waiting", "since")] == [[1, 0], [0, 0], [0, 0]]


HOLDER = """
import sys
from dynctl.frontend.board import Board
from dynctl.frontend.places import SharedPlaces
with SharedPlaces(1, Board(int(sys.argv[1]), 1, 2), lambda: None)._locked() as locked:
    print(locked, flush=True)
    sys.stdin.readline()
"""


def test_one_process_takes_at_a_time_and_none_waits_for_another_that_stands_still() -> None:
    board = Board.made(2)
    places = SharedPlaces(1, board, lambda: None)
    argv = [sys.executable, "-c", HOLDER, str(board.descriptor)]
    with subprocess.Popen(argv, pass_fds=[board.descriptor], stdin=-1, stdout=-1, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "True\n"
            assert not places.take()
            assert places.held == 0
        finally:
            holder.kill()
    assert places.take()
    assert not places.take()
    assert board.read("running") == [1, 0]
