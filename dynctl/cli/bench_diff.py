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


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """`bench diff --json`: ratios are the new result's figures over the old one's."""

    schema: int = 1
    kind: str = "bench diff"
    old: str
    new: str
    notes: tuple[str, ...] = ()
    comparison: dict[str, Verdict]


def diff(names: Sequence[str], *, as_json: bool) -> int:
    """Compares the first layouts of two results, round by round."""
    if len(names) != 2:
        raise UsageError(
            "two saved results are compared", fix="dynctl bench diff OLD NEW, each a directory of --output"
        )
    saved = [Saved(Path(name)) for name in names]
    old, new = (each.document for each in saved)
    notes = ["measured at different times: drift between them is part of the difference"]
    keys = ("isl", "osl", "concurrency", "open", "turns", "prefix_tokens", "trace", "seed")
    changed = [key for key in keys if old.workload.get(key) != new.workload.get(key)]
    if changed:
        notes.append(f"the workloads differ: {', '.join(changed)}")
    notes += [f"{name} is not valid" for name, doc in zip(names, (old, new), strict=True) if not doc.valid]
    runs = [_first(each, name, notes) for each, name in zip(saved, names, strict=True)]
    comparison = compare(
        saved[0].rounds(runs[0]),
        saved[1].rounds(runs[1]),
        slo_ms=new.slo_ms,
        gpus=(runs[0].gpus or 1, runs[1].gpus or 1),
    )
    if as_json:
        found = Diff(old=names[0], new=names[1], notes=tuple(notes), comparison=comparison)
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())  # noqa: T201
        return 0
    said = [verdict_line(names[1], names[0], comparison), *(f"note: {note}" for note in notes)]
    for line in (*comparison_lines(names[1], names[0], comparison), "", *(part for s in said for part in wrapped(s))):
        print(line)  # noqa: T201 - stdout is data
    return 0


def _first(saved: Saved, name: str, notes: list[str]) -> ArmResult:
    run = saved.document.runs[0]
    if len(saved.document.runs) > 1:
        notes.append(f"of {name} the first of {len(saved.document.runs)} is compared: {run.layout}, {run.load}")
    return run
