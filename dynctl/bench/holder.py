"""Holds what bench changed of the runs here: a process of its own, which sets it right again when its stdin ends.

So bench may be killed at any time, even by SIGKILL: what it started goes with it, what it ended comes back.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import IO, cast

import msgspec

from dynctl.errors import RunStateError

LOOK_S = 0.1


class Order(msgspec.Struct, frozen=True):
    """The command that brings a run up, or ends it, and those that undo it, one after the other: the last must succeed.
    `whole`: the first is never cut short."""

    do: list[str]
    undo: list[list[str]]
    whole: bool = False


def main() -> int:
    """An order on stdin; on stdout the first command's exit code once it is known, and what went wrong with the last.

    What says that there is, or isn't, such a run already has changed nothing: then nothing is undone.
    """
    line = sys.stdin.buffer.readline()
    if not line:  # bench was killed before it said what to do
        return 0
    order = msgspec.json.decode(line, type=Order)
    code = _do(order.do, whole=order.whole)
    _say(f"{code}\n")
    if code == RunStateError.exit_code:
        return 0
    if code == 0:
        sys.stdin.buffer.read()
    for argv in order.undo:
        ended = subprocess.run(argv, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if ended.returncode in (0, RunStateError.exit_code):
        return 0
    if not _say(ended.stderr):
        with contextlib.suppress(OSError):  # so may the terminal be
            os.write(sys.stderr.fileno(), ended.stderr.encode())
    return ended.returncode


def _do(argv: Sequence[str], *, whole: bool) -> int:
    """Its words go to stderr. Once stdin ends it gets SIGTERM, and time to end in order; nothing if it is `whole`."""
    process = subprocess.Popen(argv, stdout=sys.stderr.fileno(), stdin=subprocess.DEVNULL, start_new_session=True)
    if whole:
        return process.wait()
    over = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(over, selectors.EVENT_READ)
            selector.register(sys.stdin.buffer, selectors.EVENT_READ)
            if all(key.fileobj is not over for key, _ in selector.select()):
                process.terminate()
    finally:
        os.close(over)
    return process.wait()


def _say(text: str) -> bool:
    """Whether bench is there to hear it."""
    try:
        os.write(sys.stdout.fileno(), text.encode())
    except BrokenPipeError:
        return False
    return True


class Held:
    """The holder as bench sees it. It undoes what it did only after all holders `within` it have: it takes its stdin
    to have ended when they are gone, too."""

    _stdin: IO[bytes]

    def __init__(self, command: Sequence[str], order: Order, within: Held | None = None) -> None:
        self._process = subprocess.Popen(
            [*command, "_hold"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            pass_fds=() if within is None else (within._stdin.fileno(),),
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(msgspec.json.encode(order) + b"\n")
            self._stdin.flush()

    def done(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """The first command's exit code. Once stopped, it is told to end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while not selector.select(LOOK_S):
                if stopped():
                    self._let_go()
        line = self._stdout.readline().strip()
        return int(line) if line else 1

    def end(self) -> tuple[int, str]:
        """Undoes it, whatever it is at; 0, or the exit code of the last command and its words."""
        self._let_go()
        said = self._stdout.read().decode(errors="replace")
        self._stdout.close()
        return self._process.wait(), said

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            self._stdin.close()
