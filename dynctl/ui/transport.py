"""The KV path: what was required, what was proven, and each pair, worst first."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dynctl.fabric.verdict import BADNESS, meets
from dynctl.plan.values import CLASS_ORDER
from dynctl.telemetry.status import Evidence, PairStatus, RunStatus
from dynctl.ui.figures import clean, format_bytes, format_gigabytes_per_s
from dynctl.ui.processes import WIDE, plain_table
from dynctl.ui.words import VERDICT_STYLE, verdict_words

MOST_PAIRS = 8


def transport_block(status: RunStatus, *, width: int, most_pairs: int = MOST_PAIRS) -> RenderableType:
    """One line for the run, then a row per pair."""
    parts: list[RenderableType] = [_line(status)]
    if status.transport.pairs:
        parts.append(_pairs(status, width=width, most=most_pairs))
    if evidence := _best(status):
        parts.append(Text(_said(evidence), style="bright_black", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def worst_first(pairs: Sequence[PairStatus]) -> list[PairStatus]:
    """By verdict, slowest class first, then by rate; what has no rate comes before what has."""
    return sorted(pairs, key=lambda p: (-BADNESS.index(p.verdict), p.gigabytes_per_s or 0.0))


def _line(status: RunStatus) -> Text:
    transport = status.transport
    text = Text(no_wrap=True, overflow="ellipsis")
    if transport.verdict == "unknown" and status.state == "starting":
        text.append("not proven yet", style="bright_black")
    else:
        alike = (pair for pair in status.transport.pairs if pair.verdict == transport.verdict)
        evidence = transport.evidence or tuple(e for pair in alike for e in pair.evidence)
        words = verdict_words(transport.verdict, evidence)
        text.append(words, style=f"bold {VERDICT_STYLE.get(transport.verdict, '')}")
    text.append(f"  {format_gigabytes_per_s(transport.gigabytes_per_s)}")
    text.append("  required ", style="bright_black")
    text.append(clean(transport.required))
    floor = next((c for c in CLASS_ORDER if c == transport.required), None)
    if floor and transport.verdict != "unknown":
        met = meets(transport.verdict, floor)
        text.append(" ✓ met" if met else " ✗ not met", style="green" if met else "bold red")
    return text


def _pairs(status: RunStatus, *, width: int, most: int) -> Table:
    table = plain_table(width, width >= WIDE)
    table.add_column("PREFILL → DECODE", no_wrap=True, overflow="ellipsis", ratio=None if width >= WIDE else 3)
    table.add_column("PATH", no_wrap=True, overflow="ellipsis", ratio=None if width >= WIDE else 3)
    table.add_column("KV MOVED", no_wrap=True, justify="right", min_width=9)
    table.add_column("RATE", no_wrap=True, justify="right", min_width=9)
    ranked = worst_first(status.transport.pairs)
    for pair in ranked[:most]:
        pending = pair.verdict == "unknown" and status.state == "starting"
        table.add_row(
            Text(clean(f"{pair.from_} → {pair.to}")),
            Text("not proven yet", style="bright_black") if pending else _words(pair),
            Text(format_bytes(pair.bytes)),
            Text(format_gigabytes_per_s(pair.gigabytes_per_s)),
        )
    if len(ranked) > most:
        table.add_row(Text(f"+{len(ranked) - most} more, worst first", style="bright_black"))
    return table


def _words(pair: PairStatus) -> Text:
    return Text(verdict_words(pair.verdict, pair.evidence), style=VERDICT_STYLE.get(pair.verdict, ""))


def _best(status: RunStatus) -> Evidence | None:
    """The strongest evidence of the worst pair, or of the run."""
    order = ("used", "planned", "lane", "counter")
    found = [e for pair in worst_first(status.transport.pairs)[:1] for e in pair.evidence] or list(
        status.transport.evidence
    )
    return min(found, key=lambda e: order.index(e.kind), default=None)


def _said(evidence: Evidence) -> str:
    """The evidence with protocol and lanes before the rest, which a narrow view cuts off."""
    verb = {"used": "UCX used", "planned": "UCX plans", "lane": "UCX lanes", "counter": "counter"}[evidence.kind]
    parts = clean(evidence.line).split(" | ")
    said = " | ".join(parts[2:] + parts[:2]) if len(parts) > 2 else parts[0]
    return f"{verb}: {said}"
