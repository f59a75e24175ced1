"""One node's dynctl, over ssh or as a child here: lines in, lines out, and its end. Threads read, so nothing blocks."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import IO, NamedTuple

import msgspec

from dynctl.ssh.words import FIRST, MAX_LINE_BYTES, FromNode, ToNode, encode, from_node

KEPT_LINES = 50
NOISE_BYTES = 1 << 16
"""So much may come from login shells before the node speaks."""
LONGEST_LINE = 1000
LAST_S = 2.0
KILL_S = 5.0


class Said(NamedTuple):
    """The node said something."""

    node: str
    message: FromNode


class Talk(NamedTuple):
    """A line came on its stderr after it had spoken."""

    node: str
    line: str


class Closed(NamedTuple):
    """Nothing will come any more: the exit code, and the last lines of stderr and of what was no message."""

    node: str
    code: int
    lines: tuple[str, ...]


Inbox = queue.Queue[Said | Talk | Closed]


class Channel:
    """The way to one node. Everything that happens is put into the inbox."""

    def __init__(self, node: str, argv: list[str], inbox: Inbox, env: Mapping[str, str]) -> None:
        self.node, self._inbox = node, inbox
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._spoke = False
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # a session of its own: Ctrl-C is for the starter alone, which asks the nodes to end; ssh has no terminal to ask
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def say(self, message: ToNode) -> None:
        """Sends one message, without waiting for it to go out."""
        self._outbox.put(encode(message))

    def close(self) -> None:
        """Says no more: the node sees the end of its stdin."""
        self._outbox.put(None)

    def lines(self) -> list[str]:
        """What came on stderr so far, and what was no message."""
        return list(self._lines)

    def kill(self, deadline: float) -> None:
        """Ends the local process, which gets until `deadline` (monotonic, seconds) to go by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_S)
            return
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        stream: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        noise, nonsense = 0, False
        while line := stream.readline(MAX_LINE_BYTES):
            if not self._spoke and not line.startswith(FIRST):
                noise += len(line)
                self._keep(line)
                if noise > NOISE_BYTES:
                    nonsense = True
                    break
                continue
            self._spoke = True
            try:
                self._inbox.put(Said(self.node, from_node(line)))
            except (msgspec.DecodeError, msgspec.ValidationError):
                self._keep(line)
                nonsense = True
                break
        if nonsense:
            self._process.terminate()
        code = self._process.wait()
        self._listening.join(LAST_S)
        self._inbox.put(Closed(self.node, -signal.SIGTERM if nonsense else code, tuple(self._lines)))

    def _listen(self) -> None:
        stream: IO[bytes] = self._process.stderr  # type: ignore[assignment]
        while line := stream.readline(1 << 16):
            text = self._keep(line)
            if self._spoke and text:
                self._inbox.put(Talk(self.node, text))

    def _write(self) -> None:
        stream: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        with contextlib.suppress(OSError):  # its end is seen by who reads
            while (data := self._outbox.get()) is not None:
                stream.write(data)
                stream.flush()
        with contextlib.suppress(OSError):
            stream.close()

    def _keep(self, line: bytes) -> str:
        text = "".join(c if c.isprintable() else " " for c in line[:LONGEST_LINE].decode(errors="replace")).rstrip()
        self._lines.append(text)
        return text
