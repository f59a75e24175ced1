"""Where output goes, and whether it may have colour: --no-color, then NO_COLOR, then TERM=dumb, then isatty."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def wants_colour(stream: IO[str], *, no_color: bool = False, env: Mapping[str, str] | None = None) -> bool:
    """Whether this stream gets colour. An empty NO_COLOR counts as none, as no-color.org has it."""
    env = os.environ if env is None else env
    if no_color or env.get("NO_COLOR") or env.get("TERM") in ("dumb", "unknown"):
        return False
    return _isatty(stream)


def wants_live_view(stream: IO[str], env: Mapping[str, str] | None = None) -> bool:
    """Whether a view that redraws itself can be shown: a terminal that can move its cursor."""
    env = os.environ if env is None else env
    return _isatty(stream) and env.get("TERM") not in ("dumb", "unknown")


def console(no_color: bool = False, stderr: bool = False) -> Console:
    """A console that writes no escape codes where none are wanted, and replaces what the stream can't encode."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    colour = wants_colour(stream, no_color=no_color)
    return Console(
        file=stream,
        force_terminal=wants_live_view(stream),
        color_system="auto" if colour else None,
        no_color=not colour,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _isatty(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False
