"""Regular work at common instants, and never twice at one of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from dynctl.runtime import beat


def test_moments_fall_onto_beats_and_rather_before_than_after() -> None:
    assert beat.last_beat(1000.74, 0.5) == 1000.5
    assert beat.last_beat(1000.5, 0.5) == 1000.5
    assert beat.last_beat(0.3, 0.1) == pytest.approx(0.3), "rounding is no reason to be a beat early"


@pytest.mark.parametrize(
    ("now_s", "slept_s"),
    [(1000.2, 0.3), (1000.0, 0.5), (1000.499, 0.501)],  # the last: a timer that fired early
)
def test_all_wait_for_the_same_beat(monkeypatch: pytest.MonkeyPatch, now_s: float, slept_s: float) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(beat, "time", SimpleNamespace(monotonic=lambda: now_s))
    monkeypatch.setattr(beat, "asyncio", SimpleNamespace(sleep=sleep))
    asyncio.run(beat.next_beat(0.5))
    assert slept == [pytest.approx(slept_s)]
