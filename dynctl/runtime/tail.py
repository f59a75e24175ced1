"""Follows one process's log: start-up phases, causes of death, the last lines, and UCX's lines parted from the rest."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from pathlib import Path

from dynctl.engines.spec import LogCause, ProcessSpec
from dynctl.fabric.ucx_log import UcxReader, is_ucx_line
from dynctl.store.follow import Follower

KEPT_LINES = 200


class LogTail:
    """Reads what was appended since the last look. `on_phase` is called for each phase entered."""

    def __init__(self, spec: ProcessSpec, path: Path, ucx_path: Path | None, on_phase: Callable[[str], None]) -> None:
        self._ucx_path, self._on_phase = ucx_path, on_phase
        self._follower = Follower(path)
        self._phases = [(re.compile(rule.pattern), rule.phase) for rule in spec.log_phases]
        self._causes = [(re.compile(rule.pattern), rule) for rule in spec.log_causes]
        self._phase_at = -1
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.cause: LogCause | None = None
        self.ucx = UcxReader(str(ucx_path or path))

    def skip_to_end(self) -> None:
        """Begins at the present end of the log: what an earlier process wrote is not this one's."""
        self._follower.skip_to_end()

    @property
    def bytes_read(self) -> int:
        """Where in the log it is: it moves while the process says anything."""
        return self._follower.offset

    def poll(self) -> None:
        """Reads on to the end. A log that is not there yet, or can't be read, has nothing new."""
        for line in self._follower.lines():
            self._take(line.decode(errors="replace").rstrip("\r"))

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
