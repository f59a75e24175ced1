"""Follows one process's log: start-up phases, causes of death, the last lines, and UCX's lines parted from the rest."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from dynctl.engines.spec import LogCause, ProcessSpec
from dynctl.fabric.ucx_log import UcxReader, is_ucx_line
from dynctl.store.follow import LONGEST_LINE_BYTES, Follower

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

    def resume(self) -> None:
        """Takes in the log of a process that another reader followed so far; UCX's lines are not kept twice."""
        kept = _last_line(self._ucx_path) if self._ucx_path else None
        said: list[str] = []
        self._follower.rewind()
        for line in self._new_lines():
            if is_ucx_line(line):
                self.ucx.feed(line)
                self._note_cause(line)
                said.append(line)
                if line == kept:
                    said.clear()
            else:
                self._take(line)
        self._keep(said)

    @property
    def bytes_read(self) -> int:
        """Where in the log it is: it moves while the process says anything."""
        return self._follower.offset

    def poll(self) -> None:
        """Reads on to the end. A log that is not there yet, or can't be read, has nothing new."""
        for line in self._new_lines():
            self._take(line)

    def _new_lines(self) -> Iterator[str]:
        return (line.decode(errors="replace").rstrip("\r") for line in self._follower.lines())

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
        self._keep([line])

    def _keep(self, lines: list[str]) -> None:
        if self._ucx_path and lines:
            try:
                with self._ucx_path.open("a") as file:
                    file.writelines(f"{line}\n" for line in lines)
            except OSError:
                self._ucx_path = None  # a full disk costs the kept copy, not the verdict

    def _note_cause(self, line: str) -> None:
        if self.cause is None:
            self.cause = next((rule for pattern, rule in self._causes if pattern.search(line)), None)


def _last_line(path: Path) -> str | None:
    """The last complete line of a text file; None where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - LONGEST_LINE_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return None
    return lines[-1].decode(errors="replace") if lines else None
