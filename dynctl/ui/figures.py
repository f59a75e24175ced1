"""Figures as people read them. What is not known is a dash, never a nought."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

UNKNOWN = "–"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")


def format_bytes(count: float | None) -> str:
    """`812 MiB`, `1.5 GiB`: binary units, three digits at most before the unit changes."""
    if count is None:
        return UNKNOWN
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 999.5:
            return f"{_short(value)} {unit}"
        value /= 1024
    return f"{_short(value)} TiB"


def format_ms(milliseconds: float | None) -> str:
    """`0 ms`, `6.4 ms`, `62 ms`, `1.25 s`: from milliseconds, with the unit that reads best."""
    if milliseconds is None:
        return UNKNOWN
    if abs(milliseconds) >= 999.5:
        return f"{milliseconds / 1000:.2f} s" if abs(milliseconds) < 9_995 else f"{milliseconds / 1000:.1f} s"
    return f"{_short(milliseconds)} ms"


def format_s(seconds: float | None) -> str:
    """`0.41 s`, `12.3 s`: a measured time in seconds."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.2f} s" if abs(seconds) < 9.995 else f"{seconds:.1f} s"


def format_duration(seconds: float | None) -> str:
    """`12 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`: how long something lasted; `0 s` if a clock went backwards."""
    if seconds is None:
        return UNKNOWN
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    big, small = (60, 1) if whole < 3600 else (3600, 60) if whole < 86400 else (86400, 3600)
    names = {86400: "d", 3600: "h", 60: "min", 1: "s"}
    rest = whole % big // small
    return f"{whole // big} {names[big]}" + (f" {rest} {names[small]}" if rest else "")


def format_rate(per_second: float | None, unit: str = "req/s") -> str:
    """`2.1 req/s`."""
    return UNKNOWN if per_second is None else f"{_short(per_second)} {unit}"


def format_gigabytes_per_s(rate: float | None) -> str:
    """`0.42 GB/s` (10^9 bytes); small rates in MB/s."""
    if rate is None:
        return UNKNOWN
    if 0 < abs(rate) < 0.0995:
        return f"{_short(rate * 1000)} MB/s"
    return f"{rate:.2f} GB/s" if abs(rate) < 9.995 else f"{rate:.1f} GB/s"


def format_count(count: int | None) -> str:
    """`1,204`."""
    return UNKNOWN if count is None else f"{count:,}"


def format_clock(at: float, *, utc: bool = False) -> str:
    """Wall time in seconds as `17:03:12`, or `2026-11-23T17:03:12Z` in UTC. A time that is none gives dashes."""
    try:
        return (
            time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
            if utc
            else time.strftime("%H:%M:%S", time.localtime(at))
        )
    except (OverflowError, OSError, ValueError):
        return "--:--:--"


def format_indexes(indexes: Iterable[int]) -> str:
    """`0-3,8` from 0, 1, 2, 3, 8."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def clean(text: str) -> str:
    """One line of text without control characters: what engines and clients say is shown, never obeyed."""
    return _CONTROL.sub(" ", text).strip()


def _short(value: float) -> str:
    """Two significant digits below ten (`6.4`), whole above; no `.0`."""
    text = f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text
