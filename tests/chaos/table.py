"""The table: one line per fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COLUMNS = {
    "fault": "fault",
    "expected": "expected",
    "seen": "seen",
    "sent": "sent",
    "served": "served",
    "failed_cleanly": "failed cleanly",
    "hung": "hung",
    "orphans": "orphans",
    "detection_ms": "detection ms",
    "recovery_s": "recovery s",
}


def line(row: dict[str, Any]) -> str:
    """One row of a Markdown table; that of real engines says so."""
    named = {**row, "fault": f"vLLM: {row['fault']}"} if row.get("engine") == "vllm" else row
    return "| " + " | ".join(_cell(named[key]) for key in COLUMNS) + " |"


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """All rows below their heads."""
    return "\n".join([heads(), *(line(row) for row in rows)])


def heads() -> str:
    """The first two lines."""
    return f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * len(COLUMNS)}"


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", "/").replace("\n", " ")
