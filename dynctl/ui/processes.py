"""The table of processes."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from dynctl.telemetry.status import ProcessStatus, RunStatus
from dynctl.ui.figures import UNKNOWN, clean, format_bytes, format_duration
from dynctl.ui.words import STATE_STYLE, mark, pins, port_of

WIDE = 110
"""From this many columns on, state, phase and time have columns of their own."""

MOST_UNBOUND = 3
PART = "└ "
"""Before a part of a worker on several nodes, which comes after its leader."""
LONGEST_STATE = 32
"""Room for `waits for prefill-0` and its minutes in a narrow view."""


def process_table(status: RunStatus, *, width: int, now: float) -> Table:
    """Every process with state, phase, elapsed time, pins, port, pid, memory and restarts, in plan order."""
    wide = width >= WIDE
    nodes = len({process.node for process in status.processes}) > 1
    table = plain_table(width, wide)
    table.add_column("PROCESS", no_wrap=True, overflow="ellipsis", max_width=24 if wide else 13)
    if nodes:
        table.add_column("NODE", no_wrap=True, overflow="ellipsis", max_width=12)
    table.add_column("STATE", no_wrap=True, overflow="ellipsis", max_width=None if wide else LONGEST_STATE)
    if wide:
        table.add_column("PHASE", no_wrap=True, overflow="ellipsis", max_width=40)
        table.add_column("FOR", no_wrap=True, justify="right")
    table.add_column("PINS", overflow="fold", ratio=None if wide else 1)
    table.add_column("PORT", no_wrap=True, justify="right")
    table.add_column("PID", no_wrap=True, justify="right")
    table.add_column("RSS", no_wrap=True, justify="right")
    table.add_column("RESTARTS" if wide else "RST", no_wrap=True, justify="right")
    for process in status.processes:
        table.add_row(*_row(process, wide=wide, nodes=nodes, now=now))
    return table


def binding_lines(status: RunStatus) -> list[Text]:
    """What runs or allocates elsewhere than planned, a line each for the first few."""
    lines = [
        f"! {clean(process.id)} is not bound as planned: {clean(bound.note or '')}"
        for process in status.processes
        if (bound := process.bound) and not bound.ok
    ]
    if len(lines) > MOST_UNBOUND:
        lines[MOST_UNBOUND:] = [f"! {len(lines) - MOST_UNBOUND} more are not bound as planned"]
    return [Text(line, "yellow", overflow="fold") for line in lines]


def plain_table(width: int, wide: bool) -> Table:
    """A table without a frame, as wide as the view."""
    return Table(
        box=None,
        width=None if wide else width,
        padding=(0, 2 if wide else 1, 0, 0),
        pad_edge=False,
        header_style="bright_black",
    )


def _row(process: ProcessStatus, *, wide: bool, nodes: bool, now: float) -> list[Text]:
    state = Text(f"{mark(process.state)} {process.state}", style=STATE_STYLE.get(process.state, ""))
    phase = clean(process.phase or "")
    elapsed = elapsed_text(process, now)
    row = [Text(f"{PART if process.leader else ''}{clean(process.id)}", style="bold")]
    if nodes:
        row.append(Text(clean(process.node)))
    if wide:
        row += [state, Text(phase or UNKNOWN), Text(elapsed, style="bright_black")]
    else:
        # a phase says more than "loading": in a narrow view it takes the state's place
        doing = Text(f"{mark(process.state)} {phase}", style=state.style) if phase and _starting(process) else state
        row.append(Text.assemble(doing, (f" {elapsed}", "bright_black")))
    restarts = Text(str(process.restarts), style="yellow" if process.restarts else "bright_black")
    return [
        *row,
        _or_dash(pins(process) if wide else pins(process, 22)),
        _or_dash(str(port_of(process) or "")),
        _or_dash(str(process.pid or "")),
        _or_dash(format_bytes(process.rss_bytes)),
        restarts,
    ]


def elapsed_text(process: ProcessStatus, now: float) -> str:
    """How long the process has been in its phase, or else in its state."""
    since = process.phase_since if process.phase and process.phase_since is not None else process.since
    return UNKNOWN if since is None else format_duration(now - since)


def _starting(process: ProcessStatus) -> bool:
    return process.state in ("pending", "starting", "loading")


def _or_dash(text: str) -> Text:
    return Text(text or UNKNOWN, style="bright_black" if text in ("", UNKNOWN) else "")
