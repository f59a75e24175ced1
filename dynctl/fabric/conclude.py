"""From rows and proofs to the report: the verdict of the worst pair, and whether it is what was asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dynctl.fabric.report import Check, CheckStatus, PairReport, Report, UcxLibrary
from dynctl.fabric.verdict import BADNESS, meets, worst
from dynctl.plan.values import CLASS_ORDER, PlannedPair, TransportClass

STATUS_ORDER: tuple[CheckStatus, ...] = ("fail", "warn", "pass", "skip")
"""Worst first; what was skipped tells nothing."""


def conclude(
    *,
    required: str,
    needed: Sequence[PlannedPair],
    checks: Iterable[Check],
    pairs: Sequence[PairReport],
    ucx: Sequence[UcxLibrary] = (),
    hostname: str = "",
    peer: str | None = None,
    seconds: float | None = None,
) -> Report:
    """The report. A needed pair without a proof counts as unknown, and nothing unknown is ever ok."""
    rows = tuple(checks)
    verdicts = [worst(p.verdict for p in pairs if (p.from_, p.to) == (n.from_, n.to)) for n in needed]
    met = all(meets(reached, pair.floor) for reached, pair in zip(verdicts, needed, strict=True))
    met = met and not any(pair.error for pair in pairs)
    return Report(
        ok=met and not any(row.status == "fail" for row in rows),
        verdict=worst([*verdicts, *(pair.verdict for pair in pairs)]),
        required=required,
        hostname=hostname,
        peer=peer,
        checks=rows,
        pairs=tuple(pairs),
        ucx=tuple(ucx),
        seconds=seconds,
    )


def combined(reports: Sequence[Report], hostname: str) -> Report:
    """Several reports of one node as one: all their rows, each once, and all their pairs. All must be ok."""
    return Report(
        ok=all(report.ok for report in reports),
        verdict=worst(report.verdict for report in reports),
        required=next((report.required for report in reports if report.required != "auto"), "auto"),
        hostname=hostname,
        peer=", ".join(report.peer for report in reports if report.peer) or None,
        checks=tuple(dict.fromkeys(row for report in reports for row in report.checks)),
        pairs=tuple(pair for report in reports for pair in report.pairs),
        ucx=tuple(dict.fromkeys(library for report in reports for library in report.ucx)),
    )


def stricter(a: str, b: str) -> str:
    """The stricter of two `require` words: of two nodes that ask for different things, the one that asks for more."""
    named = [word for word in CLASS_ORDER if word in (a, b)]
    return named[0] if named else "auto"


def floor_between_nodes(required: str, *, rdma: bool) -> TransportClass:
    """What a pair on two nodes must reach: what is required, or RDMA where both nodes have active ports, else TCP."""
    named: TransportClass | None = next((word for word in CLASS_ORDER if word == required), None)
    return named or ("rdma" if rdma else "tcp")


def worst_rows(rows: Iterable[Check]) -> list[Check]:
    """Rows by status, worst first; within one status in the order in which they were checked."""
    return sorted(rows, key=lambda row: STATUS_ORDER.index(row.status))


def by_device(rows: Iterable[Check]) -> list[tuple[str, list[Check]]]:
    """Rows grouped by target without its port (`mlx5_0:1` with `mlx5_0`), the worst device first, each worst first."""
    groups: dict[str, list[Check]] = {}
    for row in rows:
        groups.setdefault(device_of(row.target), []).append(row)
    ranked = [(device, worst_rows(found)) for device, found in groups.items()]
    return sorted(ranked, key=lambda group: STATUS_ORDER.index(group[1][0].status))


def device_of(target: str) -> str:
    """`mlx5_0` of `mlx5_0:1` and `mlx5_0/1`; other targets are their own device."""
    for mark in (":", "/"):
        head, found, tail = target.rpartition(mark)
        if found and tail.isdecimal() and head:
            return head
    return target


def worst_pairs(pairs: Iterable[PairReport]) -> list[PairReport]:
    """Pairs by verdict, slowest class first, then by rate; what has no rate comes before what has."""
    return sorted(pairs, key=lambda p: (not p.error, -BADNESS.index(p.verdict), p.gigabytes_per_s or 0.0))
