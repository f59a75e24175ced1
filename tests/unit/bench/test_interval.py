"""Intervals and verdicts: they cover, they claim no difference where there is none, and they see one that is there."""

from __future__ import annotations

import math
from random import Random

import pytest

from dynctl.bench.interval import noise_floor, of_percentile, paired_t, t_quantile
from dynctl.bench.summary import percentile
from dynctl.bench.verdict import Verdict, _above, judge

Arm = list[list[float]]


def arms(random: Random, rounds: int, ratio: float, requests: int = 150) -> tuple[Arm, Arm]:
    """Latencies as machines give them: rounds differ by 3%, they drift by 5% over the run, requests within a round are
    autocorrelated (AR(1), 0.9). The arms take turns: AB, BA, AB..."""
    found: tuple[Arm, Arm] = ([], [])
    for number in range(rounds):
        for place, arm in enumerate((0, 1) if number % 2 == 0 else (1, 0)):
            drift = 1 + 0.05 * (2 * number + place) / (2 * rounds)
            level = drift * math.exp(random.gauss(0, 0.03)) * (ratio if arm else 1.0)
            mood, values = random.gauss(0, 1), []
            for _ in range(requests):
                mood = 0.9 * mood + math.sqrt(1 - 0.81) * random.gauss(0, 1)
                values.append(level * math.exp(0.2 * mood))
            found[arm].append(values)
    return found


@pytest.mark.parametrize(("rounds", "method"), [(3, "paired rounds, t"), (5, "hierarchical bootstrap")])
def test_the_interval_covers_and_equal_arms_get_no_verdict(rounds: int, method: str) -> None:
    """95% intervals hold the true ratio in at least 90% of runs; A against A is called different in at most 5%."""
    random, runs, covered, false = Random(3), 160, 0, 0
    for run in range(runs):
        first, second = arms(random, rounds, 1.0)
        interval = of_percentile(first, second, 50, draws=150, seed=run)
        assert interval is not None
        assert interval.method == method
        covered += interval.low <= 1.0 <= interval.high
        medians = [[percentile(sorted(values), 50) for values in arm] for arm in (first, second)]
        false += judge(interval, noise_floor(*medians), higher_is_better=False).verdict != "no difference shown"
    assert covered / runs >= 0.9
    assert false / runs <= 0.05


def test_a_plain_difference_is_seen() -> None:
    """1.6 times slower is worse, and the interval holds 1.6."""
    first, second = arms(Random(5), 5, 1.6)
    interval = of_percentile(first, second, 50)
    assert interval is not None
    assert interval.low <= 1.6 <= interval.high
    assert judge(interval, 0.05, higher_is_better=False).verdict == "worse"
    assert judge(interval, 0.05, higher_is_better=True).verdict == "better"


def test_a_ratio_within_the_noise_is_no_difference() -> None:
    """However narrow the interval: 2% is nothing where A against A shows 3%."""
    interval = paired_t([100.0, 101.0, 102.0], [102.0, 103.0, 104.1])
    assert interval is not None
    assert interval.low > 1
    assert judge(interval, math.log(1.03), higher_is_better=False).verdict == "no difference shown"
    assert judge(interval, math.log(1.01), higher_is_better=False).verdict == "worse"


def test_the_bootstrap_draws_what_a_plain_one_draws() -> None:
    """The short cut by beta variates has the distribution of real resampling: its deciles agree within 2%."""
    from dynctl.bench.interval import _redrawn

    random = Random(9)
    values = sorted(random.lognormvariate(0, 0.3) for _ in range(60))
    quick = sorted(_redrawn(values, 90, random) for _ in range(4000))
    plain = sorted(percentile(sorted(random.choices(values, k=60)), 90) for _ in range(4000))
    for percent in (10, 50, 90):
        assert percentile(quick, percent) == pytest.approx(percentile(plain, percent), rel=0.02)


def test_t_is_known_beyond_the_table() -> None:
    """df 30: 2.042; df 60: 2.000."""
    assert t_quantile(4) == 2.776
    assert t_quantile(30) == pytest.approx(2.042, abs=0.005)
    assert t_quantile(60) == pytest.approx(2.000, abs=0.005)


def test_one_round_gives_no_interval() -> None:
    """And neither does a figure of nought, which has no ratio."""
    assert paired_t([1.0], [2.0]) is None
    assert paired_t([1.0, 0.0], [2.0, 2.0]) is None
    assert of_percentile([[1.0]], [[]], 50) is None
    assert judge(None, None, higher_is_better=True).note


def test_what_differs_less_than_the_baseline_from_itself_gets_no_verdict() -> None:
    """A/A is a floor, in both directions; what is beyond it keeps its verdict."""
    found = Verdict(ratio=1.2, ci95=(1.1, 1.3), verdict="worse", floor=1.05)
    for ratio, word in ((1.25, "no difference shown"), (0.8, "no difference shown"), (1.1, "worse"), (None, "worse")):
        above = _above(found, Verdict(ratio=ratio))
        assert above.verdict == word
        assert above.floor == pytest.approx({1.25: 1.25, 0.8: 1.25, 1.1: 1.1}.get(ratio or 0, 1.05))
