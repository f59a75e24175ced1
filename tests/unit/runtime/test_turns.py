"""Turns: who is linked by `after` starts alone, and nobody waits for a process that is merely down."""

from __future__ import annotations

import asyncio
import types
from typing import Any

import pytest

from dynctl.engines.spec import ProcessSpec
from dynctl.runtime.turns import Turns


def spec(name: str, *after: str) -> ProcessSpec:
    return ProcessSpec(id=name, role="worker", argv=("e",), after=after)


def process(name: str) -> Any:
    """Stands for a Managed: its id, and whom it said to wait for."""
    waits: list[str] = []
    return types.SimpleNamespace(id=name, waits=waits, wait_for=waits.append)


CHAIN = (spec("c", "b"), spec("a"), spec("b", "a"), spec("alone"))


async def order(turns: Turns, *names: str, fail: str = "") -> list[str]:
    """What happens when all these start at the same moment."""
    told: list[str] = []

    async def start(name: str) -> None:
        async with turns.taken(process(name)):
            told.append(f"{name} begins")
            await asyncio.sleep(0)
            if name == fail:
                raise ZeroDivisionError
            told.append(f"{name} ends")

    await asyncio.gather(*map(start, names), return_exceptions=True)
    return told


@pytest.mark.parametrize(("names", "told"), [
    (("a", "b"), ["a begins", "a ends", "b begins", "b ends"]),
    (("c", "a"), ["c begins", "c ends", "a begins", "a ends"]),
    (("a", "alone"), ["a begins", "alone begins", "a ends", "alone ends"]),
])  # fmt: skip
def test_those_that_are_linked_start_one_after_the_other(names: tuple[str, ...], told: list[str]) -> None:
    assert asyncio.run(order(Turns(CHAIN), *names)) == told


def test_a_failed_start_gives_its_turn_back() -> None:
    assert asyncio.run(order(Turns(CHAIN), "a", "b", fail="a")) == ["a begins", "b begins", "b ends"]


def test_who_waits_says_for_whom() -> None:
    async def waits() -> list[str]:
        turns, second = Turns(CHAIN), process("b")
        async with turns.taken(process("a")):
            waiting = asyncio.create_task(turns.taken(second).__aenter__())
            await asyncio.sleep(0)
            waiting.cancel()
        found: list[str] = second.waits
        return found

    assert asyncio.run(waits()) == ["a"]
