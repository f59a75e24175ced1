"""A quantity taken apart, as a bar of blocks with a legend that can be read without colour."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.text import Text

from dynctl.ui.figures import format_ms


class Part(msgspec.Struct, frozen=True):
    """One part: its name, milliseconds (None: not known), the glyph and the style it is drawn with."""

    name: str
    value_ms: float | None
    glyph: str
    style: str


def cells(values: Sequence[float], width: int) -> list[int]:
    """Shares `width` cells out in proportion; every positive value gets one while there are enough. Negative: none."""
    positive = [max(0.0, value) for value in values]
    total = sum(positive)
    if total <= 0 or width <= 0:
        return [0] * len(values)
    exact = [value * width / total for value in positive]
    out = [max(int(share), 1 if share > 0 else 0) for share in exact]
    while sum(out) > width:
        most = max(range(len(out)), key=lambda i: (out[i] - exact[i], out[i]))
        out[most] -= 1
    while sum(out) < width:
        least = max(range(len(out)), key=lambda i: exact[i] - out[i])
        out[least] += 1
    return out


def bar(parts: Sequence[Part], width: int) -> Text:
    """The bar, exactly `width` cells; dots where nothing is known."""
    counts = cells([part.value_ms or 0.0 for part in parts], width)
    text = Text(no_wrap=True, overflow="crop")
    for part, count in zip(parts, counts, strict=True):
        text.append(part.glyph * count, style=part.style)
    if not any(counts):
        text.append("·" * max(0, width), style="bright_black")
    return text


def legend(parts: Sequence[Part], width: int) -> Text:
    """`░ queue 0 ms   █ prefill 31 ms 50%   ...`, in lines of at most `width`, never broken within a part."""
    total = sum(max(0.0, part.value_ms or 0.0) for part in parts)
    items = []
    for part in parts:
        item = Text.assemble((part.glyph, part.style), f" {part.name} ", (format_ms(part.value_ms), "bold"))
        if part.value_ms is not None and total > 0 and part.value_ms > 0:
            item.append(f" {100 * part.value_ms / total:.0f}%", style="bright_black")
        items.append(item)
    return flow(items, width, "   ")


def flow(items: Sequence[Text], width: int, separator: str = "  ") -> Text:
    """Items one after the other in lines of at most `width` cells; one that is longer gets a line to itself."""
    text, used = Text(), 0
    for item in items:
        if used and used + len(separator) + item.cell_len > width:
            text.append("\n")
            used = 0
        elif used:
            text.append(separator, style="bright_black")
            used += len(separator)
        text.append_text(item)
        used += item.cell_len
    return text
