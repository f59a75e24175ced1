"""Reads what `--output DIR` kept."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dynctl.bench.document import ArmResult, Document
from dynctl.bench.sample import Sample
from dynctl.bench.summary import Round
from dynctl.errors import UsageError

DOCUMENT, REQUESTS = "bench.json", "requests.jsonl"
MAX_BYTES = 2 << 30
"""Of a file that is read whole."""


class Row(Sample, frozen=True, kw_only=True):
    """A line of requests.jsonl: a request, and whose it was. `load`: as in the document's runs; "" in older files."""

    layout: str
    round: int
    load: str = ""


class Saved:
    """A saved result. `path`: the directory, or the bench.json in it. UsageError for what is none."""

    def __init__(self, path: Path, where: str | None = None) -> None:
        self.folder = path.parent if path.name == DOCUMENT else path
        self._where = where
        try:
            self.document = msgspec.json.decode(self._read(DOCUMENT), type=Document)
        except msgspec.DecodeError as error:
            raise UsageError(f"{self.folder / DOCUMENT} is no result of bench", where=where, why=str(error)) from error
        if not self.document.runs:
            raise UsageError(f"nothing was measured in {self.folder}", where=where)

    def rounds(self, run: ArmResult) -> list[Round]:
        """The requests of one of the document's runs, round by round."""
        try:
            rows = [msgspec.json.decode(line, type=Row) for line in self._read(REQUESTS).splitlines()]
        except msgspec.DecodeError as error:
            raise UsageError(f"{self.folder / REQUESTS} is damaged", where=self._where, why=str(error)) from error
        found: dict[int, list[Row]] = {}
        for row in rows:
            if row.layout == run.layout and row.load in ("", run.load):
                found.setdefault(row.round, []).append(row)
        return [Round(number=number, samples=tuple(found[number])) for number in sorted(found)]

    def _read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            if path.stat().st_size > MAX_BYTES:
                raise UsageError(f"{path} is larger than 2 GiB", where=self._where)
            return path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"can't read {path}", where=self._where, why=error.strerror, fix="name a directory of --output"
            ) from error
