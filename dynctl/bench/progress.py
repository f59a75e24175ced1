"""How far the bench is: a line that redraws itself on a terminal, a timestamped line per round elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from dynctl.bench.job import Progress
from dynctl.bench.sample import Sample, itl_ms, ttft_ms
from dynctl.bench.summary import percentile
from dynctl.ui.check_progress import CheckProgress
from dynctl.ui.figures import format_duration, format_ms


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
        """`round 2/5  cpu-agg  120/166 requests  TTFT p50 62 ms p90 80 ms  ITL p50 5 ms  1 min 3 s`."""
        parts = [what, f"{progress.done}/{progress.total} requests"]
        for name, get in (("TTFT", ttft_ms), ("ITL", itl_ms)):
            values = sorted(value for sample in self._samples if (value := get(sample)) is not None)
            if values:
                parts.append(f"{name} p50 {format_ms(percentile(values, 50))} p90 {format_ms(percentile(values, 90))}")
        return "  ".join([*parts, format_duration(time.monotonic() - self._began)])
