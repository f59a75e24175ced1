"""`dynctl bench diff OLD NEW`: two saved results compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dynctl.bench.document import ArmResult
from dynctl.bench.saved import Saved
from dynctl.bench.table import comparison_lines, wrapped
from dynctl.bench.verdict import Verdict, compare
from dynctl.bench.words import verdict_line
from dynctl.errors import UsageError


class LoadDiff(msgspec.Struct, frozen=True, kw_only=True):
    """One load of a sweep."""

    load: str
    comparison: dict[str, Verdict]


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """`bench diff --json`: ratios are the new result's figures over the old one's. `comparison`: that of the first
    load; `loads`: of each load that both have."""

    schema: int = 1
    kind: str = "bench diff"
    old: str
    new: str
    notes: tuple[str, ...] = ()
    comparison: dict[str, Verdict]
    loads: tuple[LoadDiff, ...] = ()


def diff(names: Sequence[str], *, as_json: bool) -> int:
    """Compares the first layouts of two results, load by load and round by round."""
    if len(names) != 2:
        raise UsageError(
            "two saved results are compared", fix="dynctl bench diff OLD NEW, each a directory of --output"
        )
    saved = [Saved(Path(name)) for name in names]
    old, new = (each.document for each in saved)
    notes = ["measured at different times: drift between them is part of the difference"]
    keys = ("isl", "osl", "turns", "prefix_tokens", "trace", "seed")
    changed = [key for key in keys if old.workload.get(key) != new.workload.get(key)]
    if changed:
        notes.append(f"the workloads differ: {', '.join(changed)}")
    notes += [f"{name} is not valid" for name, doc in zip(names, (old, new), strict=True) if not doc.valid]
    loads = tuple(
        LoadDiff(load=load, comparison=_compared(saved, before, after))
        for load, before, after in _pairs(saved, names, notes)
    )
    if as_json:
        found = Diff(old=names[0], new=names[1], notes=tuple(notes), comparison=loads[0].comparison, loads=loads)
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())  # noqa: T201
        return 0
    for load in loads:
        title = f"{names[1]} ({load.load})" if len(loads) > 1 else names[1]
        lines = comparison_lines(title, names[0], load.comparison)
        for line in (*lines, "", *wrapped(verdict_line(title, names[0], load.comparison)), ""):
            print(line)  # noqa: T201 - stdout is data
    for line in (part for note in notes for part in wrapped(f"note: {note}")):
        print(line)  # noqa: T201
    return 0


def _compared(saved: Sequence[Saved], before: ArmResult, after: ArmResult) -> dict[str, Verdict]:
    return compare(
        saved[0].rounds(before),
        saved[1].rounds(after),
        slo_ms=saved[1].document.slo_ms,
        gpus=(before.gpus or 1, after.gpus or 1),
    )


def _pairs(saved: Sequence[Saved], names: Sequence[str], notes: list[str]) -> list[tuple[str, ArmResult, ArmResult]]:
    """Loads that both have, each with both results' first layout; where they share none, the first of each."""
    old, new = (_by_load(each, name, notes) for each, name in zip(saved, names, strict=True))
    shared = [load for load in old if load in new]
    if not shared:
        before, after = next(iter(old)), next(iter(new))
        notes.append(f"the loads differ: {before} and {after}")
        return [(f"{before} → {after}", old[before], new[after])]
    alone = [load for load in (*old, *new) if load not in shared]
    if alone:
        notes.append(f"loads that only one has are left out: {', '.join(alone)}")
    return [(load, old[load], new[load]) for load in shared]


def _by_load(saved: Saved, name: str, notes: list[str]) -> dict[str, ArmResult]:
    layout = saved.document.runs[0].layout
    found = {run.load: run for run in saved.document.runs if run.layout == layout}
    others = {run.layout for run in saved.document.runs} - {layout}
    if others:
        notes.append(f"of {name} only {layout} is compared, not {', '.join(sorted(others))}")
    return found
