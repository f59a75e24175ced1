"""A few rows of the fault matrix, as `make chaos` plays them all."""

from __future__ import annotations

from tests.chaos.matrix import matrix
from tests.chaos.play import LATE, play
from tests.chaos.world import World
from tests.integration.run_harness import Home

ROWS = (
    *("prefill-0 SIGKILL", "decode-0 SIGKILL", "frontend SIGTERM"),
    *("disk full, prefill-0 killed", "run directory removed"),
)


def test_faults_cost_no_request_that_could_be_saved(home: Home) -> None:
    world = World(home, fake=True, deadline_s=60.0)
    world.up()
    for fault in (fault for fault in matrix(5.0) if fault.name in ROWS):
        seen, whole = play(world, fault)
        # how fast it was noticed is told by the table: a busy machine delays everything
        problems = [problem for problem in seen.problems if not problem.startswith(LATE)]
        assert not problems, seen.document()
        assert whole or seen.problems, seen.document()
