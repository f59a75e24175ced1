"""When one leg beats two: prompts of which little is to be computed go to decode alone. Pure.

Handing over costs its fixed part (another leg, a transfer) and saves what a prefill worker is faster by. Where that
turns is learned from the requests themselves: a straight line through TTFT over the tokens to compute, for each way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from prometheus_client.core import GaugeMetricFamily, Metric

_FADE = 0.98
"""Weight of what was known before each new observation: about 50 requests are remembered."""
_ENOUGH = 8.0
"""Observations until a line counts."""
_TRY_EACH = 32
"""One request in so many goes the other way, so that both lines stay true."""
MOST_TOKENS = 2048
"""Longer prompts are handed over whatever the lines say: computed by decode they would hold up everybody's tokens."""

Way = Literal["alone", "two legs"]


class Line:
    """Least squares through (tokens, milliseconds), older points fading."""

    __slots__ = ("weight", "x", "xx", "xy", "y")

    def __init__(self) -> None:
        self.weight = self.x = self.y = self.xx = self.xy = 0.0

    def add(self, tokens: float, ms: float) -> None:
        """One observation."""
        self.weight = self.weight * _FADE + 1
        self.x = self.x * _FADE + tokens
        self.y = self.y * _FADE + ms
        self.xx = self.xx * _FADE + tokens * tokens
        self.xy = self.xy * _FADE + tokens * ms

    def fit(self) -> tuple[float, float]:
        """Milliseconds at no tokens, and per token; never falling."""
        mean_x, mean_y = self.x / self.weight, self.y / self.weight
        spread = self.xx / self.weight - mean_x * mean_x
        slope = max(0.0, (self.xy / self.weight - mean_x * mean_y) / spread) if spread > 1 else 0.0
        return mean_y - slope * mean_x, slope


class Alone:
    """Decides for each request. `fixed`: a threshold in tokens to compute that somebody measured; None learns it.

    `tell` hears of what is learned from, where several processes learn together."""

    def __init__(self, fixed: int | None = None) -> None:
        self.fixed = fixed
        self.tell: Callable[[Way, int, float], None] | None = None
        self.lines: dict[Way, Line] = {"alone": Line(), "two legs": Line()}
        self._asked = 0

    def way(self, tokens: int) -> Way:
        """How a request goes of whose prompt so many tokens are in no cache."""
        if self.fixed is not None:
            return "alone" if tokens < self.fixed else "two legs"
        if tokens >= MOST_TOKENS:
            return "two legs"
        self._asked += 1
        alone, two = self.lines["alone"], self.lines["two legs"]
        if min(alone.weight, two.weight) < _ENOUGH:
            return "alone" if alone.weight < two.weight else "two legs"
        at = {way: cut + slope * tokens for way, line in self.lines.items() for cut, slope in (line.fit(),)}
        best: Way = "alone" if at["alone"] < at["two legs"] else "two legs"
        if self._asked % _TRY_EACH == 0:
            return "alone" if best == "two legs" else "two legs"
        return best

    def observe(self, way: Way, tokens: int, ttft_ms: float) -> None:
        """A request has had its first content."""
        if self.fixed is None and tokens < MOST_TOKENS:
            self.lines[way].add(tokens, ttft_ms)
            if self.tell is not None:
                self.tell(way, tokens, ttft_ms)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        name, text = "dynctl_decode_alone_tokens", "Tokens to compute below which decode serves a prompt alone"
        yield GaugeMetricFamily(name, text, value=self.threshold() or 0.0)

    def threshold(self) -> float | None:
        """Tokens to compute below which decode alone is expected to be faster; None while that is not known."""
        if self.fixed is not None:
            return float(self.fixed)
        alone, two = self.lines["alone"], self.lines["two legs"]
        if min(alone.weight, two.weight) < _ENOUGH:
            return None
        (cut, slope), (other_cut, other_slope) = alone.fit(), two.fit()
        if slope <= other_slope:  # the lines never cross to two legs' favour
            return float(MOST_TOKENS) if cut < other_cut else 0.0
        return min(float(MOST_TOKENS), max(0.0, (other_cut - cut) / (slope - other_slope)))
