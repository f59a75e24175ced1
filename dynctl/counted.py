"""Counts with their noun, as people write them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """`1 round`, `2 rounds`, `1 process`, `0 processes`."""
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"
