"""The live view on a terminal: redrawn when something changed, at most four times a second, else once a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live

from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus
from dynctl.ui.view import render

SHORTEST_S = 0.25
LONGEST_S = 1.0


class LiveView:
    """Draws below what was printed before, on the normal screen, and leaves the last picture behind.

    Call `update` with what is known at least once a second and on every change: it draws only when that is due, so
    calling it more often costs a comparison. Whatever came last is drawn on leaving. No thread of its own.
    """

    def __init__(
        self,
        console: Console,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._wall, self._monotonic = wall, monotonic
        self._live = Live(
            console=console, auto_refresh=False, screen=False, redirect_stdout=False, vertical_overflow="ellipsis"
        )
        self._seen: tuple[RunStatus, tuple[Event, ...]] | None = None
        self._drawn: tuple[RunStatus, tuple[Event, ...]] | None = None
        self._drawn_at = float("-inf")
        self.frames = 0

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._seen is not None and self._seen != self._drawn:
                self._draw()
        finally:
            self._live.stop()

    def update(self, status: RunStatus, events: Sequence[Event]) -> None:
        """Takes the latest status and the recent events, oldest first; draws if that is due."""
        self._seen = (status, tuple(events))
        waited = self._monotonic() - self._drawn_at
        if waited >= LONGEST_S or (waited >= SHORTEST_S and self._seen != self._drawn):
            self._draw()

    def _draw(self) -> None:
        if self._seen is None:
            return
        size = self._console.size
        picture = render(*self._seen, width=size.width, now=self._wall(), height=size.height)
        self._live.update(picture, refresh=True)
        self._drawn, self._drawn_at = self._seen, self._monotonic()
        self.frames += 1
