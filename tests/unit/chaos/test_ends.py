"""How the fault matrix measures the time to notice an end."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.chaos.ends import Ends, noticed_late_ms


def test_the_first_end_of_several_processes_is_known() -> None:
    lasting, ending = subprocess.Popen(["sleep", "60"]), subprocess.Popen(["sleep", "60"])
    try:
        ends = Ends([lasting.pid, ending.pid], 30.0)
        assert ends.first() is None
        before = time.time()
        ending.kill()
        deadline = time.monotonic() + 20
        while ends.first() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert before <= (ends.first() or 0) <= time.time()
    finally:
        for child in (lasting, ending):
            child.kill()
            child.wait(10)


@pytest.mark.parametrize(
    ("ended_at", "noticed_at", "late_ms", "said"),
    [
        (100.2, 100.203, 3.0, "its first process ended 200 ms after the signal"),
        # noticed first and heard of a moment later by the test: not 200 ms late
        (100.2, 100.199, 0.0, "its first process ended 200 ms after the signal"),
        (105.5, 104.5, 0.0, "its first process ended 5500 ms after the signal, and was noticed 1000 ms before that"),
        (None, 101.0, 1000.0, "none of its processes ended"),
    ],
)
def test_late_counts_from_the_first_end(ended_at: float | None, noticed_at: float, late_ms: float, said: str) -> None:
    found_ms, words = noticed_late_ms(100.0, ended_at, noticed_at)
    assert (found_ms, words) == (pytest.approx(late_ms), said)
