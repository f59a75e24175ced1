"""Percentiles, and medians of histograms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_samples import INF

from dynctl.telemetry.window import median_of_buckets, percentile


@pytest.mark.parametrize(("count", "q", "value"), [
    (1, 0.5, 1), (1, 0.99, 1), (2, 0.5, 1), (3, 0.5, 2), (100, 0.99, 99), (101, 0.99, 100), (1000, 0.99, 990),
    (10, 0.0, 1), (10, 1.0, 10),
])  # fmt: skip
def test_percentiles(count: int, q: float, value: float) -> None:
    assert percentile([float(number) for number in range(1, count + 1)], q) == value


def test_a_percentile_of_nothing() -> None:
    assert percentile([], 0.5) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_percentiles_are_nearest_rank(values: list[float], q: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, q)
    assert found is not None
    hundredths = round(q * 100)
    assert sum(value <= found for value in ordered) * 100 >= hundredths * len(ordered)
    assert sum(value < found for value in ordered) * 100 < hundredths * len(ordered)


@pytest.mark.parametrize(("before", "after", "median"), [
    ({}, {}, None),
    ({0.01: 5, INF: 5}, {0.01: 5, INF: 5}, None),  # nothing grew
    ({}, {0.01: 0, 0.02: 10, INF: 10}, 0.015),  # half way into its bucket
    ({}, {0.01: 4, INF: 4}, 0.005),  # the first bucket begins at zero
    ({}, {0.01: 5, 0.02: 10, INF: 10}, 0.01),  # just at a bound
    ({0.01: 4, 0.02: 4, INF: 4}, {0.01: 4, 0.02: 8, INF: 8}, 0.015),  # what was there before does not count
    ({}, {0.01: 1, INF: 10}, 0.01),  # beyond the last bound nothing is known but that bound
    ({}, {0.01: 2, 0.02: 2, 0.04: 8, INF: 8}, 0.02 + 0.02 * 2 / 6),
])  # fmt: skip
def test_medians_of_histograms(before: dict[float, float], after: dict[float, float], median: float | None) -> None:
    found = median_of_buckets(before, after)
    assert found == (median if median is None else pytest.approx(median))


BOUNDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 0.99), min_size=1, max_size=80), st.lists(st.floats(0.0, 2.0), max_size=20))
def test_the_median_of_a_histogram_is_in_the_bucket_of_the_true_one(values: list[float], earlier: list[float]) -> None:
    def buckets(seen: list[float]) -> dict[float, float]:
        return {bound: float(sum(value <= bound for value in seen)) for bound in (*BOUNDS, INF)}

    found = median_of_buckets(buckets(earlier), buckets(earlier + values))
    true = sorted(values)[math.ceil(len(values) / 2) - 1]
    upper = next(bound for bound in BOUNDS if true <= bound)
    lower = max((bound for bound in BOUNDS if bound < true), default=0.0)
    assert found is not None
    assert lower - 1e-12 <= found <= upper + 1e-12
