"""Children without which an engine can't serve: their end is told, whenever it comes."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from dynctl.runtime.vital import VitalChildren

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Children named `sleep`."""
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"]))
        return started[-1]

    yield begin
    for child in started:
        child.kill()
        child.wait(10)


def engine(members: Callable[[], list[psutil.Process]]) -> Any:
    """A process with those descendants."""
    spec = SimpleNamespace(vital=("sleep",))
    return SimpleNamespace(spec=spec, exited=asyncio.Event(), processes=lambda: [psutil.Process(), *members()])


def test_the_end_of_a_vital_child_is_told(start: Start) -> None:
    async def scene() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        child = start()
        vital = VitalChildren(told.put_nowait)
        await vital.watch(engine(lambda: [psutil.Process(child.pid)]))
        assert told.empty()
        child.kill()
        said = await asyncio.wait_for(told.get(), 10)
        vital.close()
        assert said == f"sleep (pid {child.pid})"

    asyncio.run(scene())


def test_one_that_ends_while_it_is_looked_for_is_told(start: Start) -> None:
    async def scene() -> str:
        told: asyncio.Queue[str] = asyncio.Queue()
        child = start()

        class Dying(psutil.Process):
            def name(self) -> str:
                title = super().name()
                child.kill()
                child.wait(10)
                return title

        vital = VitalChildren(told.put_nowait)
        await vital.watch(engine(lambda: [Dying(child.pid)]))
        return told.get_nowait()

    assert asyncio.run(scene()).startswith("sleep (pid ")


def test_what_is_found_of_a_process_that_has_ended_meanwhile_is_not_watched(start: Start) -> None:
    async def scene() -> None:
        child = start()
        process = engine(lambda: [psutil.Process(child.pid)])

        def members() -> list[psutil.Process]:
            process.exited.set()
            return [psutil.Process(), psutil.Process(child.pid)]

        process.processes = members
        told: list[str] = []
        vital = VitalChildren(told.append)
        await vital.watch(process)
        child.kill()
        child.wait(10)
        await asyncio.sleep(0.05)
        assert not told

    asyncio.run(scene())
