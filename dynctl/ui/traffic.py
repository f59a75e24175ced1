"""Load, TTFT, and where TTFT goes."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from dynctl.telemetry.status import RunStatus
from dynctl.ui.bar import Part, bar, flow, legend
from dynctl.ui.figures import format_count, format_duration, format_gigabytes_per_s, format_ms, format_rate

SPLIT = (
    ("queue", "queue", "░", "bright_black"),
    ("prefill", "prefill", "█", "blue"),
    ("handover", "handover", "▓", "magenta"),
)
DYNAMO_SPLIT = (
    ("prefill_wait", "prefill wait", "░", "bright_black"),
    ("prefill_to_first_token", "prefill to first token", "█", "blue"),
)
WINDOW = (
    ("prefill_queue", "prefill queue", "░", "bright_black"),
    ("prefill_compute", "prefill compute", "█", "blue"),
    ("transfer", "KV transfer", "▓", "magenta"),
    ("first_decode", "first decode", "▒", "green"),
    ("unattributed", "unattributed", "·", "yellow"),
)
"""Key in the status document, name, glyph, style."""
BAR = 100
"""A longer bar tells no more."""


def split_parts(
    figures: Mapping[str, float | None], kinds: tuple[tuple[str, str, str, str], ...] = SPLIT
) -> list[Part]:
    """The parts of a split in the order of time."""
    return [Part(name, figures.get(key), glyph, style) for key, name, glyph, style in kinds]


def traffic_block(status: RunStatus, *, width: int) -> RenderableType:
    """The traffic line, then the split by the frontend's clock and that from the engines' metrics."""
    parts: list[RenderableType] = [_line(status, width)]
    ttft = status.ttft_ms
    if ttft.requests or any(value is not None for value in ttft.split.values()):
        parts += _split(status, width)
    if any(value is not None for value in ttft.window.values()):
        parts += _window(status, width)
    return Group(*parts)


def _line(status: RunStatus, width: int) -> Text:
    front, ttft = status.frontend, status.ttft_ms
    errors = front.errors_total
    items = [
        Text(format_rate(front.requests_per_s), style="bold"),
        _fact("in flight", format_count(front.in_flight)),
        _fact("served", format_count(front.requests_total)),
        _fact("errors", format_count(errors), "bold red" if errors else ""),
        _fact("TTFT p50", format_ms(ttft.p50), "bold"),
        _fact("p99", format_ms(ttft.p99), "bold"),
    ]
    if (mark := _slo(status)) is not None:
        items.append(mark)
    return flow(items, width)


def _fact(name: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{name} ", "bright_black"), (value, style))


def _slo(status: RunStatus) -> Text | None:
    """`SLO 300 ms ✓ p99`: met by p99, by p50 only, or missed."""
    limit = status.slo_ms.get("ttft", status.slo_ms.get("ttft_ms"))
    if limit is None:
        return None
    text = Text(f"SLO {format_ms(limit)}", style="bright_black")
    ttft = status.ttft_ms
    if ttft.p99 is not None and ttft.p99 <= limit:
        text.append(" ✓ met", style="green")
    elif ttft.p50 is not None and ttft.p50 <= limit:
        text.append(" ~ p50 only", style="yellow")
    elif ttft.p50 is not None:
        text.append(" ✗ missed", style="bold red")
    return text


def _split(status: RunStatus, width: int) -> list[RenderableType]:
    ttft = status.ttft_ms
    parts = split_parts(ttft.split, SPLIT if "prefill" in ttft.split else DYNAMO_SPLIT)
    noun = "request" if ttft.requests == 1 else "requests"
    head = Text("TTFT by the frontend's clock", style="bright_black")
    head.append(f"  medians of {format_count(ttft.requests)} {noun} in {format_duration(ttft.window_s)}")
    return [head, bar(parts, min(width, BAR)), legend(parts, width)]


def _window(status: RunStatus, width: int) -> list[RenderableType]:
    window = status.ttft_ms.window
    parts = split_parts(window, WINDOW)
    head = Text("TTFT from the engines' metrics", style="bright_black")
    head.append(f"  means over {format_duration(status.ttft_ms.window_s)}")
    if (rate := window.get("gigabytes_per_s")) is not None:
        head.append(f"  KV at {format_gigabytes_per_s(rate)}")
    return [head, bar(parts, min(width, BAR)), legend(parts, width)]
