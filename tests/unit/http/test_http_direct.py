"""Tasks that start at once, and go on at once when what they wait for comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dynctl.http.direct import Direct, start_task


def apart(work: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test starts as a callback of the loop, as whatever reads a socket does, and not in a task."""

    def run() -> None:
        with asyncio.Runner() as runner:
            runner.run(work())

    run.__name__ = work.__name__
    return run


async def called_back(what: Callable[[], object]) -> None:
    """Run it where no task is running."""
    done = asyncio.get_running_loop().create_future()

    def call() -> None:
        try:
            done.set_result(what())
        except BaseException as error:
            done.set_exception(error)

    asyncio.get_running_loop().call_soon(call)
    await done


@apart
async def test_a_task_has_run_up_to_its_first_wait_when_it_is_made() -> None:
    loop, seen = asyncio.get_running_loop(), []
    gate = loop.create_future()

    async def work() -> None:
        seen.append("begun")
        await gate
        seen.append("ended")

    def start() -> None:
        tasks.append(start_task(work(), loop))
        assert seen == ["begun"]

    tasks: list[asyncio.Task[None]] = []
    await called_back(start)
    gate.set_result(None)
    await tasks[0]
    assert seen == ["begun", "ended"]


@apart
async def test_a_task_that_waits_for_nothing_is_over_and_says_how() -> None:
    loop = asyncio.get_running_loop()

    async def well() -> None:
        pass

    async def ill() -> None:
        raise ValueError("so")

    tasks: list[asyncio.Task[None]] = []
    await called_back(lambda: tasks.extend(start_task(work(), loop) for work in (well, ill)))
    await tasks[0]
    with pytest.raises(ValueError, match="so"):
        await tasks[1]


@apart
async def test_a_task_that_is_cancelled_at_once_cleans_up() -> None:
    loop, seen = asyncio.get_running_loop(), []

    async def work() -> None:
        try:
            await loop.create_future()
        finally:
            seen.append("cleaned")

    def start() -> None:
        tasks.append(start_task(work(), loop))
        tasks[0].cancel()

    tasks: list[asyncio.Task[None]] = []
    await called_back(start)
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert seen == ["cleaned"]


@apart
async def test_a_task_that_is_cancelled_when_it_is_over_is_over() -> None:
    loop = asyncio.get_running_loop()

    async def work() -> None:
        pass

    def start() -> None:
        tasks.append(start_task(work(), loop))
        tasks[0].cancel()

    tasks: list[asyncio.Task[None]] = []
    await called_back(start)
    await tasks[0]


class Waiting:
    """A task that waits for something direct."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.awaited: Direct[int] = Direct(self.loop)
        self.got: list[int | str] = []
        self.task = self.loop.create_task(self._wait())

    async def _wait(self) -> None:
        try:
            self.got.append(await self.awaited)
        except ValueError as error:
            self.got.append(str(error))

    def set(self, value: int) -> list[int | str]:
        """What the task had got when `set_result` returned."""
        self.awaited.set_result(value)
        return list(self.got)


@apart
async def test_who_waits_has_gone_on_when_the_result_is_set() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)
    told: list[int | str] = []
    await called_back(lambda: told.extend(waiting.set(1)))
    assert told == [1]
    await waiting.task


@apart
async def test_a_result_that_a_task_sets_waits_for_that_task() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)
    assert waiting.set(1) == []
    await waiting.task
    assert waiting.got == [1]


@apart
async def test_a_failure_comes_by_the_event_loop() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)
    await called_back(lambda: waiting.awaited.set_exception(ValueError("so")))
    await waiting.task
    assert waiting.got == ["so"]


@pytest.mark.parametrize("early", [True, False])
def test_what_was_set_before_is_not_waited_for(early: bool) -> None:
    async def work() -> None:
        waiting = Waiting()
        if early:
            waiting.awaited.set_result(1)
        await asyncio.sleep(0)
        if not early:
            waiting.awaited.set_result(1)
        await waiting.task
        assert waiting.got == [1]
        assert waiting.awaited.done()

    asyncio.run(work())


@apart
async def test_a_task_that_is_cancelled_waits_no_more() -> None:
    waiting = Waiting()
    await asyncio.sleep(0)
    waiting.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting.task
    assert waiting.awaited.done()
    assert waiting.set(1) == []  # too late, and nobody's fault


@apart
async def test_it_may_be_waited_for_under_a_limit() -> None:
    awaited: Direct[int] = Direct(asyncio.get_running_loop())

    async def wait() -> int:
        return await awaited

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait(), 0.01)
