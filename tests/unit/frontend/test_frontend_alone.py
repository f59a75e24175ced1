"""Decode alone or two legs: simulated engines whose times are known."""

from __future__ import annotations

import random

import pytest

from dynctl.frontend.alone import MOST_TOKENS, Alone, Way


def serve(alone: Alone, chance: random.Random, cost: dict[Way, tuple[float, float]], count: int) -> dict[Way, int]:
    """Requests of 1 to 1500 tokens; how many went each way."""
    went: dict[Way, int] = {"alone": 0, "two legs": 0}
    for _ in range(count):
        tokens = chance.randint(1, 1500)
        way = alone.way(tokens)
        fixed, slope = cost[way]
        alone.observe(way, tokens, (fixed + slope * tokens) * chance.uniform(0.9, 1.1))
        went[way] += 1
    return went


@pytest.mark.parametrize(("fixed", "slope", "crossing"), [(60.0, 0.1, 250), (120.0, 0.2, 1100), (45.0, 0.25, 700)])
def test_the_threshold_is_found_where_the_lines_cross(fixed: float, slope: float, crossing: float) -> None:
    alone = Alone()
    assert alone.threshold() is None
    serve(alone, random.Random(7), {"alone": (10.0, 0.3), "two legs": (fixed, slope)}, 2000)
    found = alone.threshold()
    assert found is not None
    assert abs(found - crossing) < 0.25 * crossing + 25


def test_it_follows_engines_that_change() -> None:
    alone, chance = Alone(), random.Random(7)
    serve(alone, chance, {"alone": (10.0, 0.3), "two legs": (60.0, 0.1)}, 1000)
    went = serve(alone, chance, {"alone": (10.0, 0.3), "two legs": (900.0, 0.1)}, 2000)
    assert went["alone"] > 1500


def test_two_legs_that_never_lose_are_taken_but_for_a_few() -> None:
    went = serve(Alone(), random.Random(7), {"alone": (50.0, 0.5), "two legs": (20.0, 0.1)}, 1000)
    assert 10 < went["alone"] < 80


def test_long_prompts_never_go_to_decode_alone() -> None:
    alone = Alone()
    assert all(alone.way(MOST_TOKENS) == "two legs" for _ in range(100))


def test_a_fixed_threshold_is_kept_whatever_is_seen() -> None:
    alone = Alone(100)
    serve(alone, random.Random(7), {"alone": (900.0, 9.0), "two legs": (1.0, 0.0)}, 200)
    assert (alone.way(99), alone.way(100), alone.threshold()) == ("alone", "two legs", 100.0)
