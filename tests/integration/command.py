"""A command under test: what it says while it runs, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import psutil

PATIENCE_S = 120.0
"""How long anything may take on a slow and busy machine before it counts as stuck."""
T = dict[str, Any]


def until(condition: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S, pause_s: float = 0.02) -> Any:
    """The first true value of `condition`; AssertionError naming `what` when none comes in time."""
    end = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"did not happen within {timeout_s:g} s: {what}"
        time.sleep(pause_s)


class Result(msgspec.Struct, frozen=True):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """stdout as one document."""
        return json.loads(self.out)

    def error(self) -> dict[str, list[str]]:
        """The lines of its error by kind: error, at, why, fix and the log tail `|`. No traceback is tolerated."""
        assert "Traceback" not in self.err, self.err
        found: dict[str, list[str]] = {"error": [], "at": [], "why": [], "fix": [], "|": []}
        for line in self.err.splitlines():
            word, _, rest = line.strip().partition(" ")
            if word == "error:" and line.startswith("error:"):
                found["error"].append(rest)
            elif line.startswith("  ") and word in found:
                found[word].append(rest.strip())
        return found


class Command:
    """A command that runs on: its output goes to files, so that it never waits for a reader."""

    def __init__(self, argv: list[str], env: Mapping[str, str], cwd: Path, **options: Any) -> None:
        self._out, self._err = (Path(tempfile.mkstemp(dir=cwd)[1]) for _ in range(2))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": err, **options}
            self.process = subprocess.Popen(argv, env=env, cwd=cwd, **streams)

    @property
    def out(self) -> str:
        """stdout so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """stderr so far."""
        return self._err.read_text()

    def wait(self, timeout_s: float = PATIENCE_S) -> Result:
        """Its end. It is killed when it does not come in time."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no end within {timeout_s:g} s\n{self.out[-3000:]}\n{self.err[-3000:]}") from None
        return Result(code, self.out, self.err)

    def says(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Waits until stderr or stdout has `text`."""

        def said() -> bool:
            if text in self.err or text in self.out:
                return True
            assert self.process.poll() is None, f"ended before it said {text!r}: {self.out}\n{self.err}"
            return False

        until(said, f"the command says {text!r}", timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone or a zombie."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
