"""From arms to what is said of them."""

from __future__ import annotations

from dynctl.bench.conclude import conclude
from dynctl.bench.document import Document
from dynctl.bench.measure import Arm
from dynctl.bench.stop import Stop
from tests.unit.bench.arms import served


def concluded(arms: list[Arm]) -> Document:
    return conclude(
        arms,
        compared=True,
        slo_ms={},
        notes=(),
        stop=Stop(),
        processes=1,
        command=(),
        backend="dynctl",
        at=1.0,
    )


def test_the_baseline_against_itself_is_a_floor_of_every_verdict() -> None:
    """Three arms: what noise the baseline shows is beside the comparison, in its floors, and said."""
    document = concluded([served("a", ttft_ms=90), served("b"), served("b again", ttft_ms=80)])
    assert [run.layout for run in document.runs] == ["a", "b", "b again"]
    assert document.baseline == "b"
    assert document.itself["ttft_p50"].ratio is not None
    for name, verdict in document.comparison.items():
        noise = document.itself[name].ratio
        if noise is not None and verdict.ratio is not None:
            assert (verdict.floor or 0) >= max(noise, 1 / noise) - 1e-9
    assert any(line.startswith("b against itself: TTFT p50 1.") for line in document.says)


def test_an_arm_that_was_never_measured_is_not_compared() -> None:
    """Interrupted in the start-up of the first layout's baseline: the two that are there are no pair."""
    document = concluded([served("a"), Arm("b", served("b").workload), served("b again")])
    assert document.comparison == {}
    assert document.baseline is None
