"""Worker tables, written in short."""

from __future__ import annotations

import msgspec

from dynctl.frontend.messages import WorkerEntry, WorkerTable
from dynctl.frontend.workers import Workers


def table(*workers: str, expected: dict[str, int] | None = None) -> WorkerTable:
    """Workers written as `prefill-0=ready`."""
    entries = []
    for number, text in enumerate(workers):
        name, state = text.split("=")
        role = name.split("-")[0]
        url = f"http://h:{8000 + number}"
        entries.append(msgspec.convert({"id": name, "role": role, "url": url, "state": state}, WorkerEntry))
    return WorkerTable(workers=tuple(entries), expected=expected or {})


def known(*workers: str, expected: dict[str, int] | None = None) -> Workers:
    subject = Workers(clock=lambda: 0.0)
    subject.update(table(*workers, expected=expected))
    return subject
