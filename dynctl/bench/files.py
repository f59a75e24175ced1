"""What `--output DIR` keeps: the native document, one JSON line per request, and files that other tools read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from dynctl.bench.compatible import aiperf, aiperf_rows, vllm
from dynctl.bench.document import Document
from dynctl.bench.measure import Arm
from dynctl.bench.outcome import load_words
from dynctl.bench.page import page
from dynctl.bench.saved import DOCUMENT, REQUESTS
from dynctl.errors import RuntimeFailure
from dynctl.replacing import replace


def write(folder: Path, document: Document, arms: Sequence[Arm]) -> list[Path]:
    """Writes everything, each file whole or not at all; the paths. RuntimeFailure when the disk does not take it."""
    written: list[Path] = []
    try:
        written.append(_put(folder / DOCUMENT, msgspec.json.format(msgspec.json.encode(document), indent=1)))
        rows = [
            {"layout": arm.label, "load": load_words(arm), "round": part.number, **msgspec.to_builtins(sample)}
            for arm in arms
            for part in arm.rounds
            for sample in part.samples
        ]
        written.append(_put(folder / "report.html", page(document, arms).encode()))
        written.append(_put(folder / REQUESTS, b"".join(msgspec.json.encode(row) + b"\n" for row in rows)))
        for number, (arm, result) in enumerate(zip([a for a in arms if a.rounds], document.runs, strict=True)):
            name = f"{number}-{_safe(arm.label)}"
            written.append(_put(folder / f"vllm-{name}.json", msgspec.json.encode(vllm(arm, result))))
            written.append(_put(folder / f"aiperf-{name}.json", msgspec.json.encode(aiperf(arm, result))))
            lines = b"".join(msgspec.json.encode(row) + b"\n" for row in aiperf_rows(arm))
            written.append(_put(folder / f"aiperf-{name}.jsonl", lines))
    except OSError as error:
        raise RuntimeFailure(f"can't write the results: {error.strerror}", where=str(folder)) from error
    return written


def _put(path: Path, content: bytes) -> Path:
    replace(path, content + (b"" if content.endswith(b"\n") else b"\n"))
    return path


def _safe(label: str) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in label)
    return kept.strip("-.")[:60] or "target"
