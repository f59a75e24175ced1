"""Charts as SVG text. Colours are the page's classes; every number that is drawn can be read at the axis or a title."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from dynctl.bench.summary import percentile

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 220, 62, 34, 10, 30
MOST_POINTS = 400


def ecdf(series: Sequence[Sequence[float]], unit: str = "ms") -> str:
    """Share of values up to x, one line per layout; x on a log scale, cut at the 99.5th percentile."""
    ordered = [sorted(value for value in values if value > 0) for values in series]
    known = [values for values in ordered if values]
    if not known:
        return _empty()
    low = min(percentile(values, 0.5) for values in known)
    high = max(*(percentile(values, 99.5) for values in known), low * 1.05)
    frame = _Frame(math.log10(low), math.log10(high), 0.0, 1.0)
    out = [frame.grid_x([math.log10(tick) for tick in _log_ticks(low, high)], lambda x: f"{_number(10**x)} {unit}")]
    out.append(frame.grid_y([0, 0.25, 0.5, 0.75, 0.9, 0.99], lambda y: f"{100 * y:g}%"))
    for number, values in enumerate(ordered):
        if values:
            points = [(math.log10(max(low, min(high, percentile(values, p / 2)))), p / 200) for p in range(201)]
            out.append(frame.line(points, f"s{number}"))
    return frame.svg(out)


def timeline(series: Sequence[Points], unit: str = "ms") -> str:
    """A dot per request: seconds since the first one, and its value."""
    dots = [point for points in series for point in points]
    if not dots:
        return _empty()
    high = percentile(sorted(y for _, y in dots), 99.5) * 1.1 or 1.0
    frame = _Frame(0.0, max(x for x, _ in dots) or 1.0, 0.0, high)
    out = [frame.grid_x(_ticks(0.0, frame.x1), lambda x: f"{_number(x)} s")]
    out.append(frame.grid_y(_ticks(0.0, high), lambda y: f"{_number(y)} {unit}"))
    for number, points in enumerate(series):
        step = max(1, len(points) // MOST_POINTS)
        out += [frame.dot(x, min(y, high), f"s{number}") for x, y in list(points)[::step]]
    return frame.svg(out)


def forest(rows: Sequence[tuple[str, float, float, float, str]]) -> str:
    """Ratios with intervals on a log scale: name, ratio, low, high, and the verdict as the class."""
    if not rows:
        return _empty()
    ratios = [row[1] for row in rows]  # an interval that is far wider than all ratios is cut, or it hides the others
    low = max(min(0.9, *(row[2] for row in rows)), min(0.25, *ratios) * 0.8) * 0.95
    high = min(max(1.1, *(row[3] for row in rows)), max(4.0, *ratios) * 1.25) * 1.05
    height = 24 * len(rows) + BOTTOM + TOP
    frame = _Frame(math.log10(low), math.log10(high), 0.0, 1.0, height=height, left=130)
    out = [frame.grid_x([math.log10(tick) for tick in _ratio_ticks(low, high)], lambda x: f"{10**x:.2g}×")]
    one = frame.x(0.0)
    out.append(f'<line class="one" x1="{one:.1f}" x2="{one:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
    for number, (name, ratio, lowest, highest, mark) in enumerate(rows):
        y = TOP + 24 * number + 12
        a, b, at = (frame.x(math.log10(min(high, max(low, value)))) for value in (lowest, highest, ratio))
        title = escape(f"{name}: {ratio:.3f} [{lowest:.3f}, {highest:.3f}]")
        out.append(
            f'<g class="{escape(mark)}"><title>{title}</title><line x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{at:.1f}" cy="{y}" r="4"/></g>'
            f'<text class="name" x="{frame.left - 8}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        )
    return frame.svg(out)


def stacked(rows: Sequence[tuple[str, Mapping[str, float | None]]]) -> str:
    """A bar per layout, its parts in milliseconds from left to right; negative parts are left out of the bar."""
    totals = [sum(max(0.0, value or 0.0) for value in parts.values()) for _, parts in rows]
    most = max(totals, default=0.0)
    if most <= 0:
        return _empty()
    height = 40 * len(rows) + BOTTOM + TOP
    frame = _Frame(0.0, most, 0.0, 1.0, height=height, left=130)
    out = [frame.grid_x(_ticks(0.0, most), lambda x: f"{_number(x)} ms")]
    for number, (name, parts) in enumerate(rows):
        y, begin = TOP + 40 * number + 8, 0.0
        out.append(f'<text class="name" x="{frame.left - 8}" y="{y + 16}" text-anchor="end">{escape(name[:20])}</text>')
        for at, (part, value) in enumerate(parts.items()):
            if value and value > 0:
                x, end = frame.x(begin), frame.x(begin + value)
                title = escape(f"{part}: {value:.1f} ms")
                out.append(
                    f'<rect class="p{at}" x="{x:.1f}" y="{y}" width="{max(end - x, 0.5):.1f}" height="24">'
                    f"<title>{title}</title></rect>"
                )
                begin += value
    return frame.svg(out)


class _Frame:
    """A plot's area: data coordinates to those of the picture."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float, *, height: int = HEIGHT, left: int = LEFT) -> None:
        self.x0, self.x1, self.y0, self.y1, self.height, self.left = x0, x1 if x1 > x0 else x0 + 1, y0, y1, height, left

    def x(self, value: float) -> float:
        return self.left + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - self.left - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (self.height - BOTTOM - TOP)

    def line(self, points: Points, name: str) -> str:
        return f'<polyline class="{name}" points="{" ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)}"/>'

    def dot(self, x: float, y: float, name: str) -> str:
        return f'<circle class="{name}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="2"/>'

    def grid_x(self, ticks: Sequence[float], word: Callable[[float], str]) -> str:
        base = self.height - BOTTOM
        return "".join(
            f'<line class="grid" x1="{self.x(t):.1f}" x2="{self.x(t):.1f}" y1="{TOP}" y2="{base}"/>'
            f'<text x="{self.x(t):.1f}" y="{base + 16}" text-anchor="middle">{escape(word(t))}</text>'
            for t in ticks
        )

    def grid_y(self, ticks: Sequence[float], word: Callable[[float], str]) -> str:
        return "".join(
            f'<line class="grid" x1="{self.left}" x2="{WIDTH - RIGHT}" y1="{self.y(t):.1f}" y2="{self.y(t):.1f}"/>'
            f'<text x="{self.left - 6}" y="{self.y(t) + 4:.1f}" text-anchor="end">{escape(word(t))}</text>'
            for t in ticks
        )

    def svg(self, parts: Sequence[str]) -> str:
        return f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img">{"".join(parts)}</svg>'


def _empty() -> str:
    return '<p class="quiet">not measured</p>'


def _ticks(low: float, high: float) -> list[float]:
    """About five round steps."""
    raw = (high - low) / 5 or 1.0
    scale: float = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * m for m in (1, 2, 5, 10) if scale * m >= raw)
    return [low + step * n for n in range(int((high - low) / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 and their tenfolds; with less than three of them between the ends, round even steps."""
    found = [m * 10.0**e for e in range(-3, 8) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    return found if len(found) > 2 else _round_ticks(low, high)


def _round_ticks(low: float, high: float) -> list[float]:
    """Round numbers between the ends, or the ends themselves."""
    step = next(iter(_ticks(0.0, high - low)[1:]), high - low)
    return [step * n for n in range(math.ceil(low / step), int(high / step) + 1)] or [low, high]


def _ratio_ticks(low: float, high: float) -> list[float]:
    near = (0.8, 0.9, 1.0, 1.1, 1.25)
    wide = (0.1, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0, 10.0)
    far = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
    chosen = near if high / low < 1.8 else wide if high / low < 12 else far
    return [tick for tick in chosen if low <= tick <= high]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
