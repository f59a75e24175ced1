"""The line of progress fits a terminal of 80 columns, whatever is measured."""

from __future__ import annotations

import pytest

from dynctl.bench.job import Progress
from dynctl.bench.progress import BenchProgress
from dynctl.bench.sample import Sample


@pytest.mark.parametrize("scale", [0.01, 1.0, 60.0])
@pytest.mark.parametrize("name", ["cpu-1p1d", "a-layout-with-a-name-that-goes-on-and-on"])
def test_it_fits(name: str, scale: float) -> None:
    told = BenchProgress()
    samples = [
        Sample(id=str(n), sent_s=0.0, chunk_s=tuple(scale * (1 + n / 10 + k) for k in range(4)), end_s=9.0)
        for n in range(9)
    ]
    progress = Progress(done=1234, total=9999, fresh=tuple(samples))
    told.tell(f"round 12/30  {name}", progress)
    line = told.line_of(f"round 12/30  {name}", progress)
    assert len(line) <= 78
    assert line.startswith("round 12/30  ")
    assert "1234/9999" in line
    assert f"TTFT {1400 * scale:.3g}/" in line
