"""How far long work is: a live line on a terminal; elsewhere a timestamped line per phase and every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status


def megabytes(count: float) -> str:
    """Bytes for people, in decimal units: `812 MB`, `4.0 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


class Progress:
    """Phases one after the other, each with its elapsed time; `update` says what is done within the phase."""

    def __init__(
        self, stream: IO[str] | None = None, *, clock: Callable[[], float] = time.monotonic, every_s: float = 10.0
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._every_s = every_s
        self._name: str | None = None
        self._detail = ""
        self._began = self._said = clock()
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            from rich.console import Console

            console = Console(file=self._stream, highlight=False)
            if not console.is_dumb_terminal:
                self._status = console.status("")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._finish()
        elif self._name is not None:
            self.say(f"{self._name}: stopped after {self._elapsed()}")
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """A line of its own, above the live one."""
        if self._status is not None:
            self._status.console.print(text, markup=False, soft_wrap=True)
        else:
            print(f"{time.strftime('%H:%M:%S')} {text}", file=self._stream, flush=True)
        self._said = self._clock()

    def phase(self, name: str) -> None:
        """Ends the phase before and begins this one."""
        self._finish()
        self._name, self._detail, self._began = name, "", self._clock()
        if self._status is None:
            self.say(name)
        else:
            self._status.start()
            self._show()

    def update(self, detail: str) -> None:
        """What is done of the present phase, to be called often."""
        self._detail = detail
        if self._status is not None:
            self._show()
        elif self._clock() - self._said >= self._every_s:
            self.say(f"{self._name}: {detail}, {self._elapsed()}" if detail else f"{self._name}: {self._elapsed()}")

    def _show(self) -> None:
        assert self._status is not None  # noqa: S101  callers checked
        parts = [part for part in (self._name, self._detail, self._elapsed()) if part]
        self._status.update(" · ".join(parts))

    def _elapsed(self) -> str:
        seconds = self._clock() - self._began
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"

    def _finish(self) -> None:
        if self._name is not None:
            detail = f" ({self._detail})" if self._detail else ""
            self.say(f"{self._name}: done in {self._elapsed()}{detail}")
        self._name = None
