"""Token counts as people write them: `3000`, `3000±10%`, `3000±200`, `100-500`."""

from __future__ import annotations

import re
from random import Random

import msgspec

MAX_TOKENS = 1_000_000
_SPREAD = re.compile(r"(\d{1,7})(?:(?:±|\+-|\+/-)(\d{1,7}(?:\.\d{1,3})?)(%?))?", re.ASCII)
_RANGE = re.compile(r"(\d{1,7})-(\d{1,7})", re.ASCII)


class Lengths(msgspec.Struct, frozen=True):
    """Lengths between `low` and `high` tokens, both included, all equally likely."""

    low: int
    high: int

    def draw(self, random: Random) -> int:
        """One length."""
        return random.randint(self.low, self.high)

    @property
    def mean(self) -> float:
        """Their mean."""
        return (self.low + self.high) / 2

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def parse_lengths(text: str) -> Lengths:
    """The lengths in `text`; ValueError, in words, for anything else."""
    compact = text.replace(" ", "").replace("_", "")
    if found := _RANGE.fullmatch(compact):
        low, high = int(found[1]), int(found[2])
    elif found := _SPREAD.fullmatch(compact):
        middle, spread = int(found[1]), float(found[2] or 0)
        if found[3]:
            if spread > 100:
                raise ValueError("must not spread by more than 100%")
            spread *= middle / 100
        low, high = round(middle - spread), round(middle + spread)
    else:
        raise ValueError("must be a count of tokens: 3000, 3000±10% (or 3000+-10%), 3000±200 or 100-500")
    if low > high:
        raise ValueError("must begin with the smaller count")
    if not 1 <= max(low, 1) <= high <= MAX_TOKENS:
        raise ValueError(f"must be between 1 and {MAX_TOKENS} tokens")
    return Lengths(max(low, 1), high)
