"""Holds a run that bench brings up: a process of its own, which ends the run when its stdin ends.

So bench may be killed at any time, even by SIGKILL: what it started goes with it.
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
    """The command that brings the run up, and the one that ends it."""

    up: list[str]
    down: list[str]


def main() -> int:
    """An order on stdin; on stdout `up`'s exit code once it is known, and what went wrong with `down`."""
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    code = _bring_up(order.up)
    _say(f"{code}\n")
    if code == 0:
        sys.stdin.buffer.read()
    ended = subprocess.run(order.down, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if ended.returncode in (0, RunStateError.exit_code):
        return 0
    _say(ended.stderr)
    return ended.returncode


def _bring_up(argv: Sequence[str]) -> int:
    """Its words go to stderr. Once stdin ends it gets SIGTERM, and time to end in order."""
    process = subprocess.Popen(argv, stdout=sys.stderr.fileno(), stdin=subprocess.DEVNULL, start_new_session=True)
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


def _say(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # bench is gone
        os.write(sys.stdout.fileno(), text.encode())


class Held:
    """The holder as bench sees it."""

    def __init__(self, command: Sequence[str], order: Order) -> None:
        self._process = subprocess.Popen(
            [*command, "_hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._stdout = cast("IO[bytes]", self._process.stdout)
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(msgspec.json.encode(order) + b"\n")
            self._stdin.flush()

    def came_up(self, stopped: Callable[[], bool]) -> int:
        """`up`'s exit code. Once stopped, it is told to end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while not selector.select(LOOK_S):
                if stopped():
                    self._let_go()
        line = self._stdout.readline().strip()
        return int(line) if line else 1

    def end(self) -> tuple[int, str]:
        """Ends the run, whatever it is at; 0, or the exit code of `down` and its words."""
        self._let_go()
        said = self._stdout.read().decode(errors="replace")
        self._stdout.close()
        return self._process.wait(), said

    def _let_go(self) -> None:
        with contextlib.suppress(OSError):
            self._stdin.close()
