"""Ctrl-C: the first ends what is under way in order and keeps what there is, the second ends the command."""

from __future__ import annotations

import signal
from types import FrameType


class Stop:
    """Asked for by SIGINT or SIGTERM. `phase` is what was under way then. Usable as a context manager."""

    def __init__(self) -> None:
        self.number = 0
        self.phase = "getting ready"
        self.interrupted_in: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._signalled)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def asked(self) -> bool:
        """Whether to end."""
        return self.number != 0

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        self.interrupted_in = self.phase
