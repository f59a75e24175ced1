"""Counts with their noun."""

from __future__ import annotations

import pytest

from dynctl.counted import counted


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [
        (1, "round", "1 round"),
        (2, "round", "2 rounds"),
        (0, "worker", "0 workers"),
        (1, "process", "1 process"),
        (3, "process", "3 processes"),
        (1, "KV transfer", "1 KV transfer"),
    ],
)
def test_a_noun_agrees_with_its_count(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said
