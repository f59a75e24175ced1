"""Figures as people read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.ui import figures
from dynctl.ui.bar import Part, bar, cells, legend


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (figures.format_bytes, 0, "0 B"),
        (figures.format_bytes, 1572864, "1.5 MiB"),
        (figures.format_bytes, 812 << 20, "812 MiB"),
        (figures.format_bytes, 1 << 40, "1 TiB"),
        (figures.format_ms, 0.0, "0 ms"),
        (figures.format_ms, 6.41, "6.4 ms"),
        (figures.format_ms, 62.4, "62 ms"),
        (figures.format_ms, -0.01, "0 ms"),
        (figures.format_ms, 1254.0, "1.25 s"),
        (figures.format_ms, 61000.0, "61.0 s"),
        (figures.format_s, 0.41, "0.41 s"),
        (figures.format_duration, 12.9, "12 s"),
        (figures.format_duration, 60.0, "1 min"),
        (figures.format_duration, 192.0, "3 min 12 s"),
        (figures.format_duration, 7500.0, "2 h 5 min"),
        (figures.format_duration, 90000.0, "1 d 1 h"),
        (figures.format_duration, -5.0, "0 s"),
        (figures.format_rate, 2.13, "2.1 req/s"),
        (figures.format_gigabytes_per_s, 0.42, "0.42 GB/s"),
        (figures.format_gigabytes_per_s, 46.04, "46.0 GB/s"),
        (figures.format_gigabytes_per_s, 0.003, "3 MB/s"),
        (figures.format_count, 1204, "1,204"),
    ],
)
def test_figures(function: Callable[[Any], str], value: float, text: str) -> None:
    assert function(value) == text


@pytest.mark.parametrize(
    "function",
    [
        figures.format_bytes,
        figures.format_ms,
        figures.format_s,
        figures.format_duration,
        figures.format_rate,
        figures.format_gigabytes_per_s,
        figures.format_count,
    ],
)
def test_what_is_not_known_is_a_dash(function: Callable[[Any], str]) -> None:
    assert function(None) == "–"


def test_indexes_clocks_and_cleaning() -> None:
    assert figures.format_indexes([8, 0, 1, 2, 3, 2]) == "0-3,8"
    assert figures.format_indexes([]) == ""
    assert figures.format_clock(0, utc=True) == "1970-01-01T00:00:00Z"
    assert figures.format_clock(float("nan")) == "--:--:--"
    assert figures.format_clock(1e30) == "--:--:--"
    assert figures.clean("a\x1b[31m\r\nb\u202e") == "a [31m b"


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.integers(0, 200))
def test_a_bar_fills_its_width(values: list[float], width: int) -> None:
    counts = cells(values, width)
    assert sum(counts) == (width if any(v > 0 for v in values) else 0)
    assert all(count >= 0 for count in counts)
    assert all(count == 0 for count, value in zip(counts, values, strict=True) if value <= 0)


def test_a_bar_is_in_proportion_and_shows_small_parts() -> None:
    assert cells([0.1, 50, 50], 21) == [1, 10, 10]
    parts = [Part("a", 1.0, "█", ""), Part("b", None, "▓", ""), Part("c", 3.0, "▒", "")]
    assert bar(parts, 8).plain == "██▒▒▒▒▒▒"
    assert bar([Part("a", None, "█", "")], 4).plain == "····"


def test_a_legend_breaks_between_parts() -> None:
    parts = [Part("prefill queue", 1.0, "█", ""), Part("KV transfer", None, "▓", ""), Part("rest", -1.0, "▒", "")]
    assert legend(parts, 80).plain == "█ prefill queue 1 ms 100%   ▓ KV transfer –   ▒ rest -1 ms"
    assert legend(parts, 30).plain.splitlines() == ["█ prefill queue 1 ms 100%", "▓ KV transfer –   ▒ rest -1 ms"]
