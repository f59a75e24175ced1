"""Regular work is done at common instants: with many workers a wake-up costs more than what is done in it.

A process that slept finds the processor's caches cold; what is done right after it finds them warm.
"""

from __future__ import annotations

import asyncio
import math
import time

EARLY = 0.1
"""A timer may fire a little before its time: so much of a period is taken for that, and is no beat of its own."""


def last_beat(at_s: float, period_s: float) -> float:
    """The latest multiple of the period up to that moment of the monotonic clock."""
    return math.floor(at_s / period_s + 1e-6) * period_s


async def next_beat(period_s: float) -> None:
    """Returns at the next multiple of the period, which those who wait for it share."""
    left_s = period_s - time.monotonic() % period_s
    await asyncio.sleep(left_s if left_s > EARLY * period_s else left_s + period_s)
