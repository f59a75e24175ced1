"""The report of `check-rdma` as text: the verdict in words, pairs, then rows by device, worst first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dynctl.fabric.conclude import by_device, worst_pairs
from dynctl.fabric.report import Check, PairReport, Report, UcxLibrary
from dynctl.ui.figures import UNKNOWN, clean, format_bytes, format_gigabytes_per_s, format_s
from dynctl.ui.words import VERDICT_STYLE, verdict_words

STATUS_STYLE: dict[str, str] = {"fail": "bold red", "warn": "yellow", "pass": "green", "skip": "bright_black"}
STATUS_MARK: dict[str, str] = {"fail": "✗", "warn": "▲", "pass": "✓", "skip": "○"}
MOST_PASSES = 24
"""With more rows than these that pass, a device's are folded into one line of their ids."""
MOST_COLUMNS = 8
"""A matrix with more targets than these is left out: the list below it says the same."""
MOST_PAIRS = 16
MOST_EVIDENCE = 4
"""Pairs, worst first, whose evidence is shown; `--json` and `--report` have that of all."""


def check_text(report: Report, width: int) -> RenderableType:
    """The whole report, `width` columns wide."""
    parts: list[RenderableType] = [headline(report)]
    if report.pairs:
        parts += [Text(), *_pairs(report.pairs, width)]
    problems = sum(row.status in ("fail", "warn") for row in report.checks)
    fold = sum(row.status == "pass" for row in report.checks) > MOST_PASSES
    for device, rows in by_device(row for row in report.checks if row.status != "skip"):
        parts += [Text(), Text(clean(device), style="bold"), *_rows(rows, width, fold=fold)]
    parts += [Text(), *_ucx(report.ucx, width)] if report.ucx else []
    parts += [Text(), *_skipped(report.checks, width)]
    parts.append(Text(_counted(report, problems), style="bright_black"))
    return Group(*parts)


def headline(report: Report) -> Text:
    """`ok: shm (CMA), 7.91 GB/s; required: auto`."""
    text = Text()
    text.append("ok: " if report.ok else "not ok: ", style="bold green" if report.ok else "bold red")
    text.append(verdict_line(report), style=f"bold {VERDICT_STYLE[report.verdict]}" if report.pairs else "")
    text.append(f"; required: {clean(report.required)}", style="bright_black")
    return text


def verdict_line(report: Report) -> str:
    """The verdict in words with the rate of the slowest pair; why there is none where nothing was proven."""
    failed = [row for row in report.checks if row.status == "fail"]
    tail = f", {len(failed)} check{'s' * (len(failed) != 1)} failed" if failed else ""
    if not report.pairs:
        return f"no transfer was made, node checks alone{tail}"
    alike = [pair for pair in report.pairs if pair.verdict == report.verdict]
    words = verdict_words(report.verdict, (line for pair in alike for line in pair.evidence))
    words = "not proven" if report.verdict == "unknown" else words
    rates = [pair.gigabytes_per_s for pair in report.pairs if pair.gigabytes_per_s is not None]
    return words + (f", {format_gigabytes_per_s(min(rates))}" if rates else "") + tail


def matrix(pairs: Sequence[PairReport]) -> tuple[list[str], list[str], dict[tuple[str, str], PairReport]]:
    """Sources, targets, and the worst proof of each source and target that has one."""
    cells: dict[tuple[str, str], PairReport] = {}
    for pair in reversed(worst_pairs(pairs)):
        cells[pair.from_, pair.to] = pair
    return list(dict.fromkeys(p.from_ for p in pairs)), list(dict.fromkeys(p.to for p in pairs)), cells


def pair_figures(pair: PairReport) -> Iterator[str]:
    """What was measured of a pair, in words; only what is known."""
    yield f"{pair.direction.upper()} of {pair.memory} memory"
    if pair.gpu is not None:
        yield f"GPU {pair.gpu}"
    if pair.nics:
        yield ", ".join(pair.nics)
    if pair.gigabytes_per_s is not None:
        spread = f" ±{pair.spread * 50:.0f}%" if pair.spread is not None else ""
        yield f"{format_gigabytes_per_s(pair.gigabytes_per_s)}{spread} at {format_bytes(pair.size_bytes)}"
    if pair.fraction_of_line_rate is not None:
        yield f"{pair.fraction_of_line_rate:.0%} of line rate"
    if pair.latency_us is not None:
        yield f"{pair.latency_us:.0f} µs"


def _pairs(pairs: Sequence[PairReport], width: int) -> Iterator[RenderableType]:
    sources, targets, cells = matrix(pairs)
    if len(targets) <= MOST_COLUMNS and len(sources) * len(targets) > 1 and 14 * (len(targets) + 1) <= width:
        yield _matrix(sources, targets, cells)
        yield Text()
    ranked = worst_pairs(pairs)
    for number, pair in enumerate(ranked[:MOST_PAIRS]):
        line = Text(f"{clean(pair.from_)} → {clean(pair.to)}  ")
        line.append(verdict_words(pair.verdict, pair.evidence), style=VERDICT_STYLE[pair.verdict])
        yield line
        yield from _wrapped("", ", ".join(pair_figures(pair)), width)
        for evidence in pair.evidence[:3] if number < MOST_EVIDENCE else ():
            yield from _wrapped("", f"{evidence.source}: {evidence.line}", width, "bright_black")
        yield from _wrapped("cause", pair.error, width, "red")
        yield from _wrapped("fix", pair.fix, width, "cyan")
    if len(ranked) > MOST_PAIRS:
        yield Text(f"+{len(ranked) - MOST_PAIRS} more pairs, none worse than these", style="bright_black")


def _matrix(sources: Sequence[str], targets: Sequence[str], cells: dict[tuple[str, str], PairReport]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black", pad_edge=False)
    table.add_column("FROM \\ TO", no_wrap=True, overflow="ellipsis")
    for target in targets:
        table.add_column(clean(target), no_wrap=True, overflow="ellipsis", justify="right")
    for source in sources:
        row = [Text(clean(source))]
        for target in targets:
            pair = cells.get((source, target))
            rate = f" {pair.gigabytes_per_s:.1f}" if pair and pair.gigabytes_per_s is not None else ""
            row.append(Text(f"{pair.verdict}{rate}", style=VERDICT_STYLE[pair.verdict]) if pair else Text(UNKNOWN))
        table.add_row(*row)
    return table


def _rows(rows: Sequence[Check], width: int, *, fold: bool) -> Iterator[Text]:
    for row in rows:
        if fold and row.status == "pass":
            continue
        yield from _row(row, width)
    passed = [row.id for row in rows if row.status == "pass"]
    if fold and passed:
        words = f"{len(passed)} passed: {', '.join(dict.fromkeys(passed))}"
        lines = textwrap.wrap(words, width - 4)
        yield Text(f"  {STATUS_MARK['pass']} {lines[0]}", style=STATUS_STYLE["pass"])
        yield from (Text(f"    {line}", style=STATUS_STYLE["pass"]) for line in lines[1:])


def _row(row: Check, width: int) -> Iterator[Text]:
    head = f"  {STATUS_MARK[row.status]} {row.status}  {clean(row.id):<8} "
    said = clean(row.observed or "")
    if row.expected and row.status != "pass":
        said += f"{'; ' if said else ''}expected {clean(row.expected)}"
    lines = textwrap.wrap(said, max(20, width - len(head))) or [""]
    text = Text(head, style=STATUS_STYLE[row.status])
    text.append(lines[0], style="default")
    yield text
    yield from (Text(" " * len(head) + line) for line in lines[1:])
    if row.status in ("fail", "warn"):
        yield from _wrapped("cause", row.cause, width)
        yield from _wrapped("fix", row.fix, width, "cyan")


def _wrapped(word: str, said: str | None, width: int, style: str = "") -> Iterator[Text]:
    """`said` below its row, its word before it. A command is never broken within a word, so that it can be copied."""
    if not said:
        return
    first = f"    {word:<6}" if word else "  "
    lines = textwrap.wrap(clean(said), max(20, width - len(first)), break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines):
        text = Text(first if number == 0 else " " * len(first), style="bright_black")
        text.append(line, style=style or "default")
        yield text


def _ucx(libraries: Sequence[UcxLibrary], width: int) -> Iterator[Text]:
    for library in libraries:
        text = Text("NIXL loads " if library.used else "also here  ", style="bold" if library.used else "bright_black")
        text.append(f"UCX {clean(library.version or 'of unknown version')}")
        yield text
        yield from _wrapped("", library.source, width)
        yield from _wrapped("", ", ".join((*library.transports, *library.devices)), width, "bright_black")


def _skipped(rows: Iterable[Check], width: int) -> Iterator[Text]:
    """One line for each reason: `20 rows skipped because dev: state, rate, ...`."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.status == "skip":
            reasons.setdefault(clean(row.cause or "not applicable"), []).append(row.id)
    for reason, ids in reasons.items():
        because = reason if reason.startswith("because ") else f"({reason})"
        ids = [clean(id_) for id_ in ids]
        words = f"{len(ids)} row{'s' * (len(ids) != 1)} skipped {because}: {', '.join(dict.fromkeys(ids))}"
        for number, line in enumerate(textwrap.wrap(words, width - 2)):
            yield Text(line if number == 0 else f"  {line}", style=STATUS_STYLE["skip"])


def _counted(report: Report, problems: int) -> str:
    passed = sum(row.status == "pass" for row in report.checks)
    words = f"{problems} problem{'s' * (problems != 1)}, {passed} passed"
    return f"{words}, {format_s(report.seconds)}" if report.seconds is not None else words
