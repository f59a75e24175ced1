"""A comparison takes minutes, on slow machines too."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from dynctl.bench.job import Job, Progress, Result
from dynctl.bench.lengths import Lengths
from dynctl.bench.measure import Bench, Limits
from dynctl.bench.pace import FEWEST, ROUND_S, fitted, trial
from dynctl.bench.sample import Sample
from dynctl.bench.target import Target
from dynctl.bench.workload import Workload

ASKED = Workload(isl=Lengths(512, 512), osl=Lengths(64, 64), requests=150, rounds=5, concurrency=4)


@pytest.mark.parametrize(
    ("requests_per_s", "requests"),
    [(100.0, 150), (5.0, 150), (2.0, 2 * ROUND_S), (0.1, FEWEST)],
    ids=["fast", "just enough", "slow", "very slow"],
)
def test_a_round_has_what_fits(requests_per_s: float, requests: int) -> None:
    assert fitted(ASKED, requests_per_s) == msgspec.structs.replace(ASKED, requests=requests)


def test_the_trial_is_short_and_shares_no_prompt() -> None:
    assert (trial(ASKED).requests, trial(ASKED).rounds) == (8, 1)
    assert trial(ASKED).nonce != ASKED.nonce


class Slow:
    """A client whose target takes two seconds for each request, and serves all slots at once."""

    def run(self, job: Job, tell: Callable[[Progress], None], stopped: Callable[[], bool]) -> Result:
        shots = [shot for session in job.sessions for shot in session.shots]
        return Result(
            samples=tuple(
                Sample(id=shot.id, phase=shot.phase, sent_s=begin_s, chunk_s=(begin_s + 2.0,), end_s=begin_s + 2.0)
                for number, shot in enumerate(shots)
                for begin_s in [2.0 * (number // job.concurrency)]
            ),
            health=None,
        )


def test_the_pace_is_what_the_trial_shows() -> None:
    bench = Bench(Slow(), Limits(), lambda *_: None, lambda: False)
    target = Target(label="a", url="http://127.0.0.1:1")
    assert bench.pace(target, trial(ASKED)) == pytest.approx(2.0)
    assert bench.pace(target, msgspec.structs.replace(trial(ASKED), concurrency=2)) == pytest.approx(1.0)
