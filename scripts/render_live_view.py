"""Renders the live view of a recorded run as an SVG picture.

    python scripts/render_live_view.py STATUS.json EVENTS.jsonl OUT.svg [--width 110] [--title TEXT] [--at SECONDS]

STATUS.json is what `dynctl status --json` printed; EVENTS.jsonl is the run's event log. Elapsed times are counted to
--at, by default the time of the last event.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import msgspec
from rich.console import Console
from rich.terminal_theme import TerminalTheme

from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus
from dynctl.ui.view import render


def palette(colours: str) -> list[tuple[int, int, int]]:
    """RRGGBB words as rich wants them."""
    return [(int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in colours.split()]


THEME = TerminalTheme(
    (13, 17, 23),
    (201, 209, 217),
    palette("161b22 ff7b72 3fb950 d29922 58a6ff bc8cff 39c5cf b1bac4"),
    palette("7d8590 ffa198 56d364 e3b341 79c0ff d2a8ff 56d4dd f0f6fc"),
)


def read_events(text: bytes) -> list[Event]:
    """The events of a log; a last line cut short is left out."""
    lines = [line for line in text.split(b"\n") if line.strip()]
    events = []
    for number, line in enumerate(lines):
        try:
            events.append(msgspec.json.decode(line, type=Event))
        except msgspec.DecodeError:
            if number + 1 < len(lines):
                raise
    return events


def main() -> None:
    """Reads, renders, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("status", type=Path)
    parser.add_argument("events", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--width", type=int, default=110)
    parser.add_argument("--title", default="dynctl up")
    parser.add_argument("--at", type=float)
    options = parser.parse_args()
    status, events = (
        msgspec.json.decode(options.status.read_bytes(), type=RunStatus),
        read_events(options.events.read_bytes()),
    )
    now = options.at or (events[-1].at if events else status.started_at or 0.0)
    console = Console(
        record=True, width=options.width, file=io.StringIO(), force_terminal=True, color_system="truecolor", emoji=False
    )
    console.print(render(status, events, width=options.width, now=now))
    console.save_svg(str(options.output), title=options.title, theme=THEME)


if __name__ == "__main__":
    main()
