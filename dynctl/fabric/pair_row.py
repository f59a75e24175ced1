"""The `pair` row: a transfer that was proven, held against the class it must reach and the line rate. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from dynctl.fabric.report import Check, CheckStatus, PairReport
from dynctl.fabric.verdict import meets
from dynctl.plan.values import TransportClass

WARN_FRACTION = 0.85
FAIL_FRACTION = 0.5
"""Of the line rate."""


def spread(rates: Sequence[float]) -> float | None:
    """(p90 - p10) / median; None for less than two."""
    if len(rates) < 2:
        return None
    tenths = statistics.quantiles(rates, n=10, method="inclusive")
    return (tenths[-1] - tenths[0]) / statistics.median(rates)


def pair_row(
    report: PairReport,
    floor: TransportClass,
    *,
    target: str,
    why: Sequence[str] = (),
    fix: str | None = None,
    lenient: bool = False,
) -> Check:
    """The row. `why` and `fix` explain a verdict that is not enough; `lenient`: an unknown one is only a warning."""
    cause = "; ".join(why) or None
    fraction = report.fraction_of_line_rate
    status: CheckStatus = "pass"
    if not meets(report.verdict, floor):
        status = "warn" if lenient and report.verdict == "unknown" else "fail"
    elif fraction is not None and fraction < WARN_FRACTION:
        status = "fail" if fraction < FAIL_FRACTION else "warn"
        cause = f"{fraction:.0%} of the line rate of {(report.gigabytes_per_s or 0.0) / fraction:.1f} GB/s"
        fix = "see the rows of these NICs: PCIe width and speed, distance to the GPU, ACS, congestion"
    return Check(
        id="pair",
        target=target,
        status=status,
        observed=_observed(report),
        expected=f"{floor} or faster",
        cause=cause if status != "pass" else None,
        fix=fix if status != "pass" else None,
    )


def _observed(report: PairReport) -> str:
    if report.gigabytes_per_s is None:
        return report.verdict
    rate = f"{report.verdict}, {report.gigabytes_per_s:.2f} GB/s"
    return f"{rate} at {(report.size_bytes or 0) >> 10:,} KiB, {report.latency_us:.0f} µs for the smallest"
