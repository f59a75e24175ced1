"""Intervals of a ratio between two arms that were measured in paired rounds. Nothing here assumes that requests are
independent: within a round they share the machine's mood, so rounds are what is resampled first."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from random import Random
from typing import Literal

import msgspec

from dynctl.bench.summary import percentile

ENOUGH_ROUNDS = 5
"""From here on the hierarchical bootstrap covers (bench.md §4); below it only paired rounds' t does."""
DRAWS = 2000
_T: tuple[float, ...] = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T += (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)
"""Student's t, 97.5%, for 1 to 20 degrees of freedom."""
_Z = 1.96

Method = Literal["paired rounds, t", "hierarchical bootstrap"]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio (second arm over first) with its 95% interval."""

    ratio: float
    low: float
    high: float
    method: Method
    rounds: int


def t_quantile(freedom: int) -> float:
    """The 97.5% quantile of Student's t; above 20 degrees of freedom to two digits."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 + 2.4 / freedom


def paired_t(first: Sequence[float], second: Sequence[float]) -> Interval | None:
    """From one positive figure per arm and round; None under two rounds, or where a figure is not positive."""
    if len(first) < 2 or min(*first, *second) <= 0:
        return None
    logs = [math.log(b / a) for a, b in zip(first, second, strict=True)]
    mean = statistics.fmean(logs)
    half = t_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(
        ratio=math.exp(mean),
        low=math.exp(mean - half),
        high=math.exp(mean + half),
        method="paired rounds, t",
        rounds=len(logs),
    )


def of_percentile(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    percent: float,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval | None:
    """Of a percentile, from every round's values of both arms: t under five rounds, else the hierarchical bootstrap."""
    if not first or any(not values for values in (*first, *second)):
        return None
    a, b = [sorted(values) for values in first], [sorted(values) for values in second]
    by_t = paired_t([percentile(values, percent) for values in a], [percentile(values, percent) for values in b])
    if by_t is None or len(a) < ENOUGH_ROUNDS:
        return by_t
    random = Random(seed)
    found = []
    for _ in range(draws):
        total = 0.0
        for _ in a:
            at = random.randrange(len(a))
            total += math.log(_redrawn(b[at], percent, random) / _redrawn(a[at], percent, random))
        found.append(total / len(a))
    found.sort()
    # A bootstrap of few rounds is too narrow (84% coverage at five in simulation): widened as t is wider than z.
    wider, middle = t_quantile(len(a) - 1) / _Z, math.log(by_t.ratio)
    return Interval(
        ratio=by_t.ratio,
        low=math.exp(middle + wider * (percentile(found, 2.5) - middle)),
        high=math.exp(middle + wider * (percentile(found, 97.5) - middle)),
        method="hierarchical bootstrap",
        rounds=len(a),
    )


def noise_floor(first: Sequence[float], second: Sequence[float]) -> float | None:
    """How far from 1 (as |log ratio|) two equal arms would come in 95% of cases, by how each arm's own rounds differ.

    From one positive figure per arm and round. It is what A against A shows, without running it; drift counts as noise.
    """
    if len(first) < 2 or min(*first, *second) <= 0:
        return None
    rounds = len(first)
    spread = statistics.fmean(statistics.variance([math.log(value) for value in arm]) for arm in (first, second))
    return t_quantile(2 * (rounds - 1)) * math.sqrt(2 * spread / rounds)


def _redrawn(ordered: Sequence[float], percent: float, random: Random) -> float:
    """The percentile of a sample drawn with replacement from sorted values.

    The k-th smallest of n uniform draws is Beta(k, n + 1 - k), and the next one follows from it: so the draw need not
    be made, and a resample costs two random numbers instead of n.
    """
    count = len(ordered)
    at = (count - 1) * percent / 100
    rank = int(at)
    place = random.betavariate(rank + 1, count - rank)
    low = ordered[min(int(place * count), count - 1)]
    if rank + 1 >= count or at == rank:
        return low
    after = 1 - (1 - place) * random.random() ** (1 / (count - rank - 1))
    high = ordered[min(int(after * count), count - 1)]
    return low + (high - low) * (at - rank)
