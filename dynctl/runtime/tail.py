"""Follows one process's log: start-up phases, causes of death, the last lines, and UCX's lines parted from the rest."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from dynctl.engines.spec import LogCause, ProcessSpec
from dynctl.fabric.ucx_log import UcxReader, is_ucx_line

KEPT_LINES = 200
READ_BYTES = 1 << 20
LONGEST_LINE = 1 << 16


class LogTail:
    """Reads what was appended since the last look. `on_phase` is called for each phase entered."""

    def __init__(self, spec: ProcessSpec, path: Path, ucx_path: Path | None, on_phase: Callable[[str], None]) -> None:
        self._path, self._ucx_path, self._on_phase = path, ucx_path, on_phase
        self._phases = [(re.compile(rule.pattern), rule.phase) for rule in spec.log_phases]
        self._causes = [(re.compile(rule.pattern), rule) for rule in spec.log_causes]
        self._offset = 0
        self._rest = b""
        self._phase_at = -1
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.cause: LogCause | None = None
        self.ucx = UcxReader(str(ucx_path or path))

    def skip_to_end(self) -> None:
        """Begins at the present end of the log: what an earlier process wrote is not this one's."""
        try:
            self._offset = self._path.stat().st_size
        except OSError:
            self._offset = 0

    @property
    def bytes_read(self) -> int:
        """How far the log has been read: it rises while the process says anything."""
        return self._offset

    def poll(self) -> None:
        """Reads on to the end. A log that is not there yet, or can't be read, has nothing new."""
        for line in self._new_lines():
            self._take(line)

    def _new_lines(self) -> Iterator[str]:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset, self._rest = 0, b""  # copied and truncated by rotation
                file.seek(self._offset)
                while chunk := file.read(READ_BYTES):
                    self._offset += len(chunk)
                    *complete, self._rest = (self._rest + chunk).split(b"\n")
                    self._rest = self._rest[-LONGEST_LINE:]
                    yield from (line.decode(errors="replace").rstrip("\r") for line in complete)
        except OSError:
            return

    def _take(self, line: str) -> None:
        if is_ucx_line(line):
            self._take_ucx(line)
            return
        if line.strip():
            self.lines.append(line)
        for position, (pattern, phase) in enumerate(self._phases):
            if position > self._phase_at and pattern.search(line):
                self._phase_at = position
                self._on_phase(phase)
                break
        self._note_cause(line)

    def _take_ucx(self, line: str) -> None:
        self.ucx.feed(line)
        self._note_cause(line)
        if self._ucx_path:
            try:
                with self._ucx_path.open("a") as file:
                    file.write(line + "\n")
            except OSError:
                self._ucx_path = None  # a full disk costs the kept copy, not the verdict

    def _note_cause(self, line: str) -> None:
        if self.cause is None:
            self.cause = next((rule for pattern, rule in self._causes if pattern.search(line)), None)
