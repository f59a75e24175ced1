"""The places for running requests: how many there are, and which of several processes takes the next."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dynctl.frontend.board import Board

_TRIES = 100
"""At the lock. It is held for microseconds: beyond that its holder does not run now, and is not waited for."""


class Places:
    """Those of a process alone. `most`: how many there are · `held`: taken by this process, each for one request."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def free(self) -> bool:
        """Whether there is a place."""
        return self.held < self.most

    def take(self) -> bool:
        """Whether there was a place; it is taken."""
        if not self.free():
            return False
        self.held += 1
        return True

    def give(self) -> None:
        """One is free again."""
        self.held -= 1

    def waiting(self, here: int) -> int:
        """Requests that wait in all processes, where so many wait in this one."""
        return here

    def others_turn(self) -> bool:
        """Whether the next place is for another process, where some wait for longer without getting one."""
        return False

    def served(self) -> None:
        """A place was taken for one that had waited: this process's turn comes again after all others'."""

    def pass_on(self) -> None:
        """Places may be left, and another process's turn: it is told."""


class SharedPlaces(Places):
    """Those of all processes of a frontend: each writes on the board what it holds, and under a lock where it takes.

    So the limit holds exactly, and what a process that died had taken is free once its words are cleared; a lock of its
    ends with it. `tell`: others may look whether there is a place for them."""

    def __init__(self, most: int, board: Board, tell: Callable[[], None]) -> None:
        super().__init__(most)
        self._board = board
        self._tell = tell
        self._since = 0

    def free(self) -> bool:
        """Whether there is a place."""
        return sum(self._board.read("running")) < self.most

    def take(self) -> bool:
        """Whether there was a place; it is taken."""
        if not self.free():
            return False
        with self._locked() as locked:
            if not locked or not self.free():
                return False
            self.held += 1
            self._board.write("running", self.held)
            return True

    def give(self) -> None:
        """One is free again."""
        self.held -= 1
        self._board.write("running", self.held)

    def waiting(self, here: int) -> int:
        """Requests that wait in all processes, where so many wait in this one."""
        if not here:
            self._since = 0
        elif not self._since:
            self._since = time.monotonic_ns()
        self._board.write("waiting", here)
        self._board.write("since", self._since)
        return sum(self._board.read("waiting"))

    def others_turn(self) -> bool:
        """Whether some wait in a process that has had no place for longer."""
        return any(since and (not self._since or since < self._since) for since in self._board.read("since"))

    def served(self) -> None:
        """This process's turn comes again after all others'."""
        self._since = time.monotonic_ns()
        self._board.write("since", self._since)

    def pass_on(self) -> None:
        """Tell the others, where it is one's turn."""
        if self.free() and self.others_turn():
            self._tell()

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether this process has the lock. A POSIX one, which is the process's and not the descriptor's."""
        for _ in range(_TRIES):
            try:
                fcntl.lockf(self._board.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.sched_yield()
            else:
                break
        else:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._board.descriptor, fcntl.LOCK_UN)
