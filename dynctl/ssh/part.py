"""A node's end of `up --ssh`: what the starter asks on stdin, and this node's supervisor in messages on stdout."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import sys
import threading
import time
from types import FrameType

import msgspec

from dynctl.errors import DynctlError, RuntimeFailure
from dynctl.nodes.failed import Failed
from dynctl.runtime.client import Connection, SupervisorLost, ask_down
from dynctl.runtime.messages import Gone
from dynctl.ssh.words import (
    MAX_LINE_BYTES,
    SILENT_S,
    Alive,
    Check,
    Clear,
    End,
    Go,
    Leave,
    ToNode,
    encode,
    to_node,
)
from dynctl.store.run import await_release

TICK_S = 0.25
LOST_GRACE_S = 10.0


class StarterLost(Exception):
    """The starter went away, or does not read."""


class Starter:
    """The other end. Whatever else prints on this process's stdout goes to stderr from here on."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._out = os.dup(1)
        os.dup2(2, 1)
        os.set_blocking(self._out, False)
        self._inbox: queue.SimpleQueue[ToNode | None] = queue.SimpleQueue()
        self._heard_at = time.monotonic()
        self._main = threading.main_thread().ident or 0
        self.busy = False
        """While the main thread can't look here, the end of stdin interrupts it as Ctrl-C would."""
        threading.Thread(target=self._read, daemon=True).start()

    def say(self, message: msgspec.Struct) -> None:
        """Sends one message; StarterLost where it can't go out."""
        left, deadline = memoryview(encode(message)), time.monotonic() + SILENT_S
        while left:
            _, writable, _ = select.select([], [self._out], [], max(0.0, deadline - time.monotonic()))
            if not writable:
                raise StarterLost
            try:
                left = left[os.write(self._out, left) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise StarterLost from error

    def ask(self, timeout_s: float) -> ToNode | None:
        """The next message, None when none comes in time; StarterLost at the end, or after a long silence."""
        try:
            found = self._inbox.get(timeout=timeout_s) if timeout_s else self._inbox.get_nowait()
        except queue.Empty:
            if time.monotonic() - self._heard_at > SILENT_S:
                raise StarterLost from None
            return None
        if found is None:
            raise StarterLost
        return found

    def want(self) -> ToNode:
        """The next message that is more than a sign of life."""
        while True:
            found = self.ask(TICK_S)
            if found and not isinstance(found, Alive):
                return found

    def _read(self) -> None:
        # not by sys.stdin: its lock would be held by this thread when the interpreter ends
        rest = b""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            while len(rest) < MAX_LINE_BYTES and (data := os.read(0, 1 << 16)):
                *lines, rest = (rest + data).split(b"\n")
                self._heard_at = time.monotonic()
                for line in lines:
                    self._inbox.put(to_node(line))
        self._inbox.put(None)
        if self.busy:
            signal.pthread_kill(self._main, signal.SIGINT)


class Part:
    """This node's part of the run, from its launch on: ended when the starter asks for it, or is lost."""

    def __init__(self, name: str, connection: Connection, starter: Starter) -> None:
        self._name, self._connection, self._starter = name, connection, starter
        self._lost = False
        self._signals: list[int] = []
        self._gone = False

    def run(self) -> int:
        """Until the part has ended, or the starter leaves it; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._signalled)
        while not self._gone:
            try:
                messages = self._connection.read(TICK_S)
            except SupervisorLost:
                self._tell(Failed.of(self._without_a_word()))
                return 1
            for message in messages:
                if isinstance(message, Gone):
                    self._gone = True
                    await_release(self._name)
                self._tell(message)
            if self._take():
                self._connection.close()
                return 0
        return 0

    def _take(self) -> bool:
        """What the starter says; whether it leaves."""
        try:
            while not self._lost and (message := self._starter.ask(0.0)):
                match message:
                    case End():
                        ask_down(self._connection, grace_s=message.grace_s, now=message.now)
                    case Leave():
                        return True
                    case Alive() | Check() | Clear() | Go():
                        pass
        except StarterLost:
            self._leave_nothing()
        return False

    def _tell(self, message: msgspec.Struct) -> None:
        if self._lost:
            return
        try:
            self._starter.say(message)
        except StarterLost:
            self._leave_nothing()

    def _leave_nothing(self) -> None:
        self._lost = True
        ask_down(self._connection, grace_s=LOST_GRACE_S, now=False)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        ask_down(self._connection, grace_s=LOST_GRACE_S, now=len(self._signals) > 1)

    def _without_a_word(self) -> DynctlError:
        return RuntimeFailure(
            f"the supervisor of `{self._name}` ended without a word",
            fix=f"`dynctl down {self._name}` there ends what it left; `dynctl logs` shows why",
        )
