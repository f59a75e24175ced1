"""Durations as people write them: `30s`, `300ms`, `5m`, `1h30m`."""

from __future__ import annotations

import re

PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"
MAX_S = 30 * 86400.0
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_WHOLE = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h)){1,8}", re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds in `text`; ValueError, in words, for what has no unit, is zero, or is longer than 30 days."""
    compact = text.strip()
    if len(compact) > 64 or not _WHOLE.fullmatch(compact):
        raise ValueError("must be a duration: a number with its unit, ms, s, m or h")
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _PART.findall(compact))
    if not 0 < seconds <= MAX_S:
        raise ValueError("must be longer than zero and at most 30 days")
    return seconds
