"""How far the bench is: a line that redraws itself on a terminal, a timestamped line per round elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dynctl.bench.job import Progress
from dynctl.bench.sample import Sample, itl_ms, ttft_ms
from dynctl.bench.summary import percentile
from dynctl.ui.check_progress import CheckProgress

WIDTH, LONGEST = 78, 30
"""Columns of the line, and of a round's name in it."""


class BenchProgress(CheckProgress):
    """Told of every report of the loader; off a terminal it says each round once, when it begins."""

    def __init__(self, *, no_color: bool = False) -> None:
        super().__init__(no_color=no_color)
        self._what = ""
        self._samples: list[Sample] = []
        self._began = time.monotonic()

    def tell(self, what: str, progress: Progress) -> None:
        """A report of the round `what`."""
        if what != self._what:
            self._what, self._samples = what, []
            if self._status is None:
                self.phase(what)
        self._samples += [s for s in progress.fresh if s.phase == "measured" and s.served]
        if self._status is not None:
            self.phase(self.line_of(what, progress))

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While others write to the terminal, the line that redraws itself is away."""
        if self._status is not None:
            self._status.stop()
        try:
            yield
        finally:
            if self._status is not None:
                self._status.start()

    def line_of(self, what: str, progress: Progress) -> str:
        """`round 2/5  cpu-agg  120/166  TTFT 62/80 ms  ITL 5/6.1 ms (p50/p90)  63 s`: in 78 columns."""
        parts = [what[:LONGEST], f"{progress.done}/{progress.total}"]
        for name, get in (("TTFT", ttft_ms), ("ITL", itl_ms)):
            values = sorted(value for sample in self._samples if (value := get(sample)) is not None)
            if values:
                p50, p90 = (f"{percentile(values, percent):.3g}" for percent in (50, 90))
                parts.append(f"{name} {p50}/{p90} ms" + (" (p50/p90)" if name == "ITL" else ""))
        parts.append(f"{time.monotonic() - self._began:.0f} s")
        while len(line := "  ".join(parts)) > WIDTH and len(parts) > 2:
            parts.pop()
        return line
