"""When an open loop sends: constant, Poisson or gamma gaps, with an optional ramp of the rate."""

from __future__ import annotations

import math
from random import Random
from typing import Literal

import msgspec

Kind = Literal["constant", "poisson", "gamma"]


class OpenLoop(msgspec.Struct, frozen=True, kw_only=True):
    """`rate` sessions per second. `burstiness` is the shape of the gamma gaps, as in vLLM's tool: 1 is Poisson, less is
    burstier, more is steadier. `ramp_s`: the rate rises linearly from nought to `rate` over so many seconds first."""

    rate: float
    kind: Kind = "poisson"
    burstiness: float = 1.0
    ramp_s: float = 0.0


def arrivals(loop: OpenLoop, count: int, random: Random) -> list[float]:
    """`count` times in seconds from the start, rising."""
    total, out = 0.0, []
    for _ in range(count):
        total += _gap(loop, random)
        out.append(_warped(total, loop))
    return out


def ramp_count(loop: OpenLoop) -> int:
    """How many arrivals fall into the ramp, on average: half of what the whole rate would bring."""
    return math.ceil(loop.rate * loop.ramp_s / 2)


def _gap(loop: OpenLoop, random: Random) -> float:
    """In mean gaps: 1 on average."""
    if loop.kind == "constant":
        return 1.0
    if loop.kind == "poisson":
        return random.expovariate(1.0)
    return random.gammavariate(loop.burstiness, 1 / loop.burstiness)


def _warped(arrivals_so_far: float, loop: OpenLoop) -> float:
    """The time by which so many mean gaps have passed: within the ramp, rate * t**2 / (2 * ramp) of them have."""
    in_ramp = loop.rate * loop.ramp_s / 2
    if arrivals_so_far < in_ramp:
        return math.sqrt(2 * arrivals_so_far * loop.ramp_s / loop.rate)
    return loop.ramp_s + (arrivals_so_far - in_ramp) / loop.rate
