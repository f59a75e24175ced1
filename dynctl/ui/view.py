"""The whole view of a run: pure, from a status and the last events to something rich can print at any width."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus
from dynctl.ui.figures import clean, format_clock, format_duration
from dynctl.ui.nodes import MOST_NODES, node_table, nodes_heading
from dynctl.ui.plain import message_of, subject
from dynctl.ui.processes import binding_lines, process_table
from dynctl.ui.traffic import traffic_block
from dynctl.ui.transport import MOST_PAIRS, transport_block
from dynctl.ui.words import EVENT_STYLE, STATE_STYLE, mark

MOST_EVENTS = 6
MOST_WARNINGS = 3
WIDEST = 140
"""On a wider terminal the view stays this wide: lines that long are hard to follow."""
_BANNER_STYLE = {
    "degraded": "bold black on yellow",
    "failed": "bold white on red",
    "unsupervised": "bold black on yellow",
}


def render(
    status: RunStatus, events: Sequence[Event], *, width: int, now: float, height: int | None = None
) -> RenderableType:
    """The live view. `now`: wall time in seconds. `height`: so many lines at most, by fewer pairs and events."""
    width = min(width, WIDEST)
    parts: list[RenderableType] = []
    room = MOST_EVENTS
    for most_pairs in (MOST_PAIRS, 4, 2, 1):
        most_nodes = min(2 * most_pairs, MOST_NODES)
        parts = _body(status, width=width, now=now, most_pairs=most_pairs, most_nodes=most_nodes)
        if height is None:
            break
        room = height - _lines(parts, width) - 2
        if room >= 2:
            break
    shown = min(MOST_EVENTS, len(events), max(0, room))
    if shown:
        parts.append(_heading("events"))
        parts += [_event(event) for event in events[-shown:]]
    return Constrain(Group(*parts), width)


def status_text(status: RunStatus, *, width: int, colour: bool = True, now: float | None = None) -> RenderableType:
    """The same, once, for `dynctl status`: every pair and node, no events."""
    width = min(width, WIDEST)
    at = time.time() if now is None else now
    pairs, nodes = max(len(status.transport.pairs), 1), len(status.nodes)
    whole = Constrain(Group(*_body(status, width=width, now=at, most_pairs=pairs, most_nodes=nodes)), width)
    return whole if colour else Colourless(whole)


class Colourless:
    """A renderable without its styles."""

    def __init__(self, inner: RenderableType) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield Segment(segment.text, None, segment.control)


def _body(status: RunStatus, *, width: int, now: float, most_pairs: int, most_nodes: int) -> list[RenderableType]:
    parts: list[RenderableType] = [_header(status, width=width, now=now)]
    if banner := _banner(status, width):
        parts.append(banner)
    parts += [Text(f"! {clean(w)}", style="yellow", overflow="fold") for w in status.warnings[:MOST_WARNINGS]]
    if len(status.warnings) > MOST_WARNINGS:
        parts.append(Text(f"! {len(status.warnings) - MOST_WARNINGS} more warnings", style="yellow"))
    if status.nodes:
        parts += [_heading(nodes_heading(status)), node_table(status, width=width, most=most_nodes)]
    parts += [_heading("processes"), process_table(status, width=width, now=now), *binding_lines(status)]
    if status.transport.pairs or any(process.role == "prefill" for process in status.processes):
        parts += [_heading("transport"), transport_block(status, width=width, most_pairs=most_pairs)]
    if status.frontend.requests_total or status.state not in ("starting", "stopped"):
        parts += [_heading("traffic"), traffic_block(status, width=width)]
    return parts


def _header(status: RunStatus, *, width: int, now: float) -> RenderableType:
    """`● ready  NAME  URL` with the time at the right; below it model, progress and verification."""
    style = STATE_STYLE.get(status.state, "bold")
    left = Text.assemble((f"{mark(status.state)} {status.state}", style), "  ", (clean(status.name), "bold"))
    if status.frontend.url:
        left.append("  ").append(clean(status.frontend.url), style="underline")
    right = Text(_age(status, now), style="bright_black")
    grid = Table.grid(expand=False, padding=(0, 1, 0, 0))
    grid.width = width
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(left, right)
    facts = _facts(status)
    if not facts.plain:
        return grid
    grid.add_row(facts, Text(_supervisor(status), style="bright_black"))
    return grid


def _age(status: RunStatus, now: float) -> str:
    if status.started_at is None:
        return ""
    word = {"starting": "for", "stopped": "started", "failed": "started"}.get(status.state, "up")
    age = format_duration(now - status.started_at)
    return f"{word} {age} ago" if word == "started" else f"{word} {age}"


def _supervisor(status: RunStatus) -> str:
    return f"supervisor {status.supervisor.pid}" if status.supervisor.pid else ""


def _facts(status: RunStatus) -> Text:
    text = Text()
    if status.served_name:
        text.append("model ", style="bright_black")
        text.append(clean(status.served_name))
    if status.state == "starting" and status.processes:
        ready = sum(process.state == "ready" for process in status.processes)
        text.append(f"  {ready} of {len(status.processes)} processes ready", style="cyan")
    verify = status.verify
    if verify.state == "passed":
        text.append("  tokens verified", style="green")
        text.append(f" ({verify.prompts} prompts, {verify.tokens} tokens)", style="bright_black")
    elif verify.state == "pending" and status.state == "starting":
        text.append("  tokens not verified yet", style="bright_black")
    elif verify.state in ("warned", "failed"):
        words = "tokens differ" if verify.state == "failed" else "tokens differ within what kernels may"
        text.append(f"  {words}", style="bold red" if verify.state == "failed" else "yellow")
        text.append(f": {clean(verify.detail)}" if verify.detail else "")
    return text


def _banner(status: RunStatus, width: int) -> Text | None:
    """Why the run is not whole: the run's reason, or the frontend's."""
    if status.state not in _BANNER_STYLE:
        reason = status.reason if status.state in ("stopping", "stopped") else None
        return Text(f"{status.state}: {clean(reason)}", overflow="fold") if reason else None
    reason = clean(status.reason or status.frontend.reason or "no reason given")
    text = Text(f" {status.state.upper()}: {reason} ", style=_BANNER_STYLE[status.state], overflow="fold")
    if len(text.plain) < width:
        text.pad_right(width - len(text.plain))
    return text


def _event(event: Event) -> Text:
    """A plain line, cut at the width, the time dim, trouble coloured."""
    style = EVENT_STYLE.get(event.kind, "")
    if event.kind in ("run.state", "process.state") and event.state:
        style = STATE_STYLE.get(event.state, "")
    return Text.assemble(
        (format_clock(event.at), "bright_black"),
        " ",
        (f"{subject(event):<11}", "bold"),
        "  ",
        (message_of(event), style),
        no_wrap=True,
        overflow="ellipsis",
    )


def _heading(title: str) -> Rule:
    return Rule(Text(title, style="bold"), align="left", style="bright_black", characters="─")


def _lines(parts: Sequence[RenderableType], width: int) -> int:
    scratch = Console(width=width, file=io.StringIO(), color_system=None, legacy_windows=False)
    return len(scratch.render_lines(Group(*parts), pad=False))
