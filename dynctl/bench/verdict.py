"""What may be said of two arms: better, worse, or that no difference was shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from dynctl.bench.interval import Interval, noise_floor, of_percentile, paired_t
from dynctl.bench.summary import Rates, Round, percentile, rates

Word = Literal["better", "worse", "no difference shown"]
ENOUGH_FOR_P99 = 500
"""Requests per arm below which a p99 says too little (bench.md §4)."""

LATENCIES = ("ttft_ms", "ttst_ms", "itl_ms", "inter_chunk_ms", "request_latency_ms")
THROUGHPUTS = ("requests_per_s", "output_tokens_per_s", "goodput")
SHOWN_PERCENTILES = (50, 90, 99)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """One metric compared: `ratio` is the layout's figure over its baseline's. `floor`: the ratio's distance from 1
    that two equal layouts would show. `note`: why there is no verdict, None where there is one."""

    ratio: float | None = None
    ci95: tuple[float, float] | None = None
    verdict: Word = "no difference shown"
    method: str | None = None
    rounds: int = 0
    floor: float | None = None
    note: str | None = None


def judge(interval: Interval | None, floor: float | None, *, higher_is_better: bool) -> Verdict:
    """A verdict needs an interval that excludes 1 and a ratio that exceeds the noise floor (a |log ratio|)."""
    if interval is None:
        return Verdict(note="not measured in two rounds of both layouts")
    far = not interval.low <= 1 <= interval.high and abs(math.log(interval.ratio)) > (floor or 0.0)
    word: Word = "no difference shown"
    if far:
        word = "better" if (interval.ratio > 1) == higher_is_better else "worse"
    return Verdict(
        ratio=interval.ratio,
        ci95=(interval.low, interval.high),
        verdict=word,
        method=interval.method,
        rounds=interval.rounds,
        floor=math.exp(floor) if floor is not None else None,
    )


def compare(
    baseline: Sequence[Round],
    layout: Sequence[Round],
    *,
    slo_ms: Mapping[str, float] | None = None,
    gpus: tuple[int, int] = (1, 1),
    itself: Mapping[str, Verdict] | None = None,
) -> dict[str, Verdict]:
    """Every metric of `layout` against `baseline`: the n-th round of one with the n-th of the other.

    `gpus`: of the baseline and of the layout; throughput is compared per GPU. `itself`: the baseline against itself
    (A/A); a ratio no further from 1 than that is no difference shown.
    """
    pairs = list(zip(baseline, layout, strict=False))
    out: dict[str, Verdict] = {}
    for metric in LATENCIES:
        values = [[part.values(metric) for part in arm] for arm in zip(*pairs, strict=True)] if pairs else [[], []]
        for percent in SHOWN_PERCENTILES:
            name = f"{metric.removesuffix('_ms')}_p{percent}"
            out[name] = _latency(values[0], values[1], percent, metric)
    scalars = [(rates(a, dict(slo_ms or {})), rates(b, dict(slo_ms or {}))) for a, b in pairs]
    for metric in THROUGHPUTS:
        if metric == "goodput" and not slo_ms:
            continue
        out[metric] = _throughput(scalars, metric, gpus)
    return {name: _above(found, (itself or {}).get(name)) for name, found in out.items()}


def _above(found: Verdict, itself: Verdict | None) -> Verdict:
    """The verdict, where the ratio is further from 1 than the baseline's against itself."""
    if found.ratio is None or itself is None or itself.ratio is None:
        return found
    seen = abs(math.log(itself.ratio))
    floor = math.exp(max(seen, math.log(found.floor or 1.0)))
    word = "no difference shown" if abs(math.log(found.ratio)) <= seen else found.verdict
    return msgspec.structs.replace(found, floor=floor, verdict=word)


def _latency(first: list[list[float]], second: list[list[float]], percent: int, metric: str) -> Verdict:
    if not first or any(not values for values in (*first, *second)):
        return Verdict(note="not measured in every round of both layouts")
    requests = min(sum(map(len, first)), sum(map(len, second)))
    if percent >= 99 and requests < ENOUGH_FOR_P99:
        return Verdict(note=f"p{percent} needs {ENOUGH_FOR_P99} requests per layout; there are {requests}")
    points = [[percentile(sorted(values), percent) for values in arm] for arm in (first, second)]
    # gaps within a request are no independent draws: only whole rounds are compared there
    interval = paired_t(*points) if metric == "inter_chunk_ms" else of_percentile(first, second, percent)
    return judge(interval, noise_floor(*points), higher_is_better=False)


def _throughput(scalars: list[tuple[Rates | None, Rates | None]], metric: str, gpus: tuple[int, int]) -> Verdict:
    known = [(a, b) for a, b in scalars if a and b]
    first = [(getattr(a, metric) or 0.0) / gpus[0] for a, _ in known]
    second = [(getattr(b, metric) or 0.0) / gpus[1] for _, b in known]
    if len(known) < len(scalars) or not known:
        return Verdict(note="not measured in every round of both layouts")
    return judge(paired_t(first, second), noise_floor(first, second), higher_is_better=True)
