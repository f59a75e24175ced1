"""What the processes of one frontend see of each other's load: words in shared memory.

Each process writes words of its own only, and reads the sums; the retry budget's one word is everybody's. No lock: a
word is stored whole, and what must be exact to the last request (see `places`) takes one itself. Nothing is left on a
file system.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from dynctl.frontend.chooser import Load
from dynctl.frontend.routing import Worker

_WORD_BYTES = 8
_ROLES = ("prefill", "decode", "worker")
Admitted = Literal["running", "waiting", "since"]
_ADMITTED: tuple[Admitted, ...] = get_args(Admitted)
_LINES = (*_ROLES, *_ADMITTED)
_MAX_WORKERS = 4096


class Board:
    """The memory behind `descriptor`, as process `number` of `processes` has it.

    Words: the retry budget, then a line of `processes` words for the turns of each role, for what admission counts
    (requests that run, that wait, and since when, in nanoseconds of the monotonic clock, 0 where none waits), and for
    the tokens under way of each worker. `columns`: which line is a worker's.
    """

    def __init__(self, descriptor: int, number: int, processes: int) -> None:
        self.descriptor = descriptor
        self.number = number
        self.processes = processes
        memory = memoryview(mmap.mmap(descriptor, _size(processes)))
        self._words = memory.cast("q")
        self.budget = memory[:_WORD_BYTES].cast("d")
        self.columns: dict[str, int] = {}

    @classmethod
    def made(cls, processes: int) -> Board:
        """A new one, as the first process has it."""
        descriptor = os.memfd_create("dynctl-frontend")
        os.ftruncate(descriptor, _size(processes))
        return cls(descriptor, 0, processes)

    def name(self, workers: Iterable[str]) -> bool:
        """Give each worker a line, in this order after those that have one; whether any was new. Workers beyond the
        last line are each process's own affair."""
        new = [worker for worker in workers if worker not in self.columns]
        for worker in new[: _MAX_WORKERS - len(self.columns)]:
            self.columns[worker] = len(self.columns)
        return bool(new)

    def turn(self, role: str) -> int:
        """Choices made in that pool before, by all processes; this one is counted."""
        start = 1 + _ROLES.index(role) * self.processes
        turn = sum(self._words[start : start + self.processes])
        self._words[start + self.number] += 1
        return turn

    def read(self, line: Admitted) -> list[int]:
        """That of each process."""
        start = 1 + _LINES.index(line) * self.processes
        return self._words[start : start + self.processes].tolist()

    def write(self, line: Admitted, value: int) -> None:
        """This process's own."""
        self._words[1 + _LINES.index(line) * self.processes + self.number] = value

    def put(self, worker: str, tokens: int) -> None:
        """This process has so many tokens under way there; nobody sees it while the worker has no line."""
        column = self.columns.get(worker)
        if column is not None:
            self._words[self._line(column) + self.number] = tokens

    def total(self, worker: str) -> int | None:
        """Tokens under way there by all processes; None while the worker has no line."""
        column = self.columns.get(worker)
        if column is None:
            return None
        start = self._line(column)
        return sum(self._words[start : start + self.processes])

    def clear(self, number: int) -> None:
        """That process has died: nothing of its is under way, and nothing waits there."""
        for line in _ADMITTED:
            self._words[1 + _LINES.index(line) * self.processes + number] = 0
        for column in self.columns.values():
            self._words[self._line(column) + number] = 0

    def _line(self, column: int) -> int:
        return 1 + (len(_LINES) + column) * self.processes


class SharedLoad(Load):
    """The load of all processes: holds this one's own, and looks up the sums."""

    def __init__(self, board: Board) -> None:
        super().__init__()
        self._board = board

    def turn(self, role: str) -> int:
        """Choices made in that pool before, by all processes."""
        return self._board.turn(role)

    def add(self, worker: str, tokens: int) -> None:
        """So many more of this process are under way there, or fewer."""
        super().add(worker, tokens)
        self._board.put(worker, self.get(worker, 0))

    def of(self, workers: tuple[Worker, ...]) -> Mapping[str, int]:
        """Tokens of all processes under way in these workers."""
        found = {}
        for worker in workers:
            total = self._board.total(worker.id)
            found[worker.id] = self.get(worker.id, 0) if total is None else total
        return found


def _size(processes: int) -> int:
    return _WORD_BYTES * (1 + (len(_LINES) + _MAX_WORKERS) * processes)
