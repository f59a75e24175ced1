"""What `check-rdma` is at: one line that changes on a terminal, a timestamped line per phase elsewhere. On stderr."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING, Self

from dynctl.ui.terminal import console, wants_live_view

if TYPE_CHECKING:
    from rich.status import Status


class CheckProgress:
    """Say a phase when it begins; it lasts until the next."""

    def __init__(self, stream: IO[str] | None = None, *, no_color: bool = False) -> None:
        self._stream = stream or sys.stderr
        self._no_color = no_color
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if wants_live_view(self._stream):
            self._status = console(self._no_color, stderr=True).status("")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def phase(self, text: str) -> None:
        """What is done now: a phase, and how many bytes of it."""
        if self._status is not None:
            from rich.text import Text

            self._status.update(Text(text))
        else:
            self.line(f"{time.strftime('%H:%M:%S')} {text}")

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._status is not None:
            self._status.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)
