"""`dynctl bench diff OLD NEW`: two saved results compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dynctl.bench.document import Document
from dynctl.bench.sample import Sample
from dynctl.bench.summary import Round
from dynctl.bench.table import comparison_lines, wrapped
from dynctl.bench.verdict import Verdict, compare
from dynctl.bench.words import verdict_line
from dynctl.errors import UsageError


class _Row(Sample, frozen=True, kw_only=True):
    """A line of requests.jsonl."""

    layout: str
    round: int


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
    (old, old_rounds), (new, new_rounds) = (_read(Path(name)) for name in names)
    notes = ["measured at different times: drift between them is part of the difference"]
    keys = ("isl", "osl", "concurrency", "open", "turns", "prefix_tokens", "trace", "seed")
    changed = [key for key in keys if old.workload.get(key) != new.workload.get(key)]
    if changed:
        notes.append(f"the workloads differ: {', '.join(changed)}")
    notes += [f"{name} is not valid" for name, doc in zip(names, (old, new), strict=True) if not doc.valid]
    gpus = (old.runs[0].gpus or 1, new.runs[0].gpus or 1)
    comparison = compare(old_rounds, new_rounds, slo_ms=new.slo_ms, gpus=gpus)
    if as_json:
        found = Diff(old=names[0], new=names[1], notes=tuple(notes), comparison=comparison)
        print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())  # noqa: T201
        return 0
    said = [verdict_line(names[1], names[0], comparison), *(f"note: {note}" for note in notes)]
    for line in (*comparison_lines(names[1], names[0], comparison), "", *(part for s in said for part in wrapped(s))):
        print(line)  # noqa: T201 - stdout is data
    return 0


def _read(path: Path) -> tuple[Document, list[Round]]:
    folder = path.parent if path.name == "bench.json" else path
    try:
        document = msgspec.json.decode((folder / "bench.json").read_bytes(), type=Document)
        lines = (folder / "requests.jsonl").read_bytes().splitlines()
        rows = [msgspec.json.decode(line, type=_Row) for line in lines]
    except OSError as error:
        raise UsageError(
            f"can't read {error.filename}", why=error.strerror, fix="name a directory of --output"
        ) from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{folder} holds no result of bench", why=str(error)) from error
    if not document.runs:
        raise UsageError(f"nothing was measured in {folder}")
    layout = document.runs[0].layout
    numbers = sorted({row.round for row in rows if row.layout == layout})
    return document, [
        Round(number=n, samples=tuple(row for row in rows if row.layout == layout and row.round == n)) for n in numbers
    ]
