"""The pair row: a class that is not enough fails, and so does RDMA far below the line rate."""

from __future__ import annotations

import pytest

from dynctl.fabric.pair_row import pair_row, spread
from dynctl.fabric.report import PairReport


@pytest.mark.parametrize(
    ("fraction", "status"), [(None, "pass"), (0.97, "pass"), (0.85, "pass"), (0.84, "warn"), (0.49, "fail")]
)
def test_the_line_rate(fraction: float | None, status: str) -> None:
    report = PairReport(
        from_="a", to="b", verdict="rdma", gigabytes_per_s=50.0 * (fraction or 1), latency_us=5.0, size_bytes=1 << 20,
        fraction_of_line_rate=fraction,
    )  # fmt: skip
    row = pair_row(report, "rdma", target="a -> b (read)")
    assert row.status == status
    assert (row.cause is None) == (status == "pass")
    if status != "pass":
        assert "line rate of 50.0 GB/s" in (row.cause or "")


def test_a_class_that_is_not_enough() -> None:
    report = PairReport(from_="a", to="b", verdict="tcp")
    row = pair_row(report, "rdma", target="a -> b (read)", why=("no device",), fix="modprobe mlx5_ib")
    assert (row.status, row.observed, row.cause, row.fix) == ("fail", "tcp", "no device", "modprobe mlx5_ib")


def test_unknown_is_a_warning_only_where_that_is_allowed() -> None:
    report = PairReport(from_="a", to="b")
    assert pair_row(report, "tcp", target="x").status == "fail"
    assert pair_row(report, "tcp", target="x", lenient=True).status == "warn"


def test_spread() -> None:
    assert spread([1.0]) is None
    assert spread([2.0, 2.0, 2.0]) == 0
    assert spread([1.0, 2.0, 3.0]) == pytest.approx(0.8)
