"""Drives pip in a new virtual environment: what it is doing, and in words why it failed."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from dynctl.engines.environment.child import child_env, run_child
from dynctl.engines.environment.progress import Progress, megabytes
from dynctl.errors import DynctlError, HostError, RuntimeFailure

# The CPU builds of torch are not on PyPI; PyTorch serves them here (https://pytorch.org/get-started/locally/).
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
MISSING = re.compile(r"No matching distribution found for (\S+)")
NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|Network is unreachable|ProxyError"
    r"|ReadTimeoutError|ConnectTimeoutError|SSLError|CERTIFICATE_VERIFY_FAILED|Connection refused|ConnectionResetError"
)
# The last lines of a failure say little when they are these.
NOISE = re.compile(r"^WARNING: (Location|Skipping)|^\[notice\]|^\s*$")


class NoWheelError(HostError):
    """No configured index has a build that fits this Python and machine."""


class Pip:
    """pip of one environment. `scratch` is where it unpacks downloads, `log` gets all that it says."""

    def __init__(self, python: Path, scratch: Path, log: Path, progress: Progress, keep: Sequence[int] = ()) -> None:
        self._python = python
        self._scratch = scratch
        self._log = log
        self._progress = progress
        self._keep = keep
        self._said: deque[str] = deque(maxlen=400)
        self._collected = self._installing = self._before = self._want = 0
        self._bytes = self._want_bytes = 0

    def install(self, what: Sequence[str], *, packages: int, download_bytes: int = 0) -> None:
        """Installs exactly what is named, from wheels only. `packages` and `download_bytes` are what to expect.

        Raises NoWheelError where no index has a file that fits, HostError or RuntimeFailure for other failures.
        """
        self._said.clear()
        self._collected = self._installing = self._bytes = 0
        self._before, self._want, self._want_bytes = self._installed(), packages, download_bytes
        self._scratch.mkdir(exist_ok=True)
        argv = [str(self._python), "-I", "-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--no-compile"]
        argv += ["--progress-bar=off", "--no-input", "--disable-pip-version-check", *what]
        env = child_env(TMPDIR=str(self._scratch), PIP_USER="0", PIP_NO_COLOR="1")
        with self._log.open("a") as log:

            def hear(line: str) -> None:
                log.write(f"{line}\n")
                self._hear(line)

            code = run_child(argv, on_line=hear, on_tick=self._tick, env=env, keep=self._keep)
        if code != 0:
            raise self._failure()
        self._progress.update(f"{self._installing} installed" + (f", {megabytes(self._bytes)}" if self._bytes else ""))

    def _hear(self, line: str) -> None:
        self._said.append(line)
        if line.startswith("Collecting "):
            self._collected += 1
        elif line.startswith("Ignoring "):
            self._want -= 1
        elif line.startswith("Installing collected packages:"):
            self._installing = line.count(",") + 1
        self._tick()

    def _tick(self) -> None:
        if self._installing:
            done = min(max(self._installed() - self._before, 0), self._installing)
            self._progress.update(f"installed {done} of {self._installing}")
            return
        # pip keeps every download of a run in such folders until it has installed them.
        self._bytes = max(self._bytes, sum(_size(file) for file in self._scratch.glob("pip-unpack-*/*")))
        of = f" of {megabytes(self._want_bytes)}" if self._want_bytes else ""
        amount = f", {megabytes(self._bytes)}{of}" if self._bytes else ""
        self._progress.update(f"fetching {self._collected} of {max(self._want, self._collected)}{amount}")

    def _installed(self) -> int:
        return sum(1 for _ in self._python.parent.parent.glob("lib/python*/site-packages/*.dist-info"))

    def _failure(self) -> DynctlError:
        return explain(list(self._said), str(self._log))


def explain(said: Sequence[str], log: str) -> DynctlError:
    """The error for a failed pip, from what it said."""
    text = "\n".join(said)
    tail = [line for line in said if not NOISE.search(line)][-6:]
    if "No space left on device" in text:
        return HostError("the disk is full", where=log, fix="free some space and run it again", tail=tail)
    if "DO NOT MATCH THE HASHES" in text:
        return RuntimeFailure(
            "a downloaded package is not the one in the lock: its hash differs",
            where=log,
            why="the index or mirror served another file, or the download was cut",
            fix="run it again; if it stays, point pip at an index that serves PyPI's own files",
            tail=tail,
        )
    if NETWORK.search(text):
        return RuntimeFailure(
            "the package index could not be reached",
            where=log,
            fix="check the network and pip's configuration (PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, proxies); run it again",
            tail=tail,
        )
    missing = MISSING.search(text)
    if missing:
        return NoWheelError(
            f"no package index has {missing[1]} for this Python and machine",
            where=log,
            fix="point pip at an index that has it (PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS), then run it again",
            tail=tail,
        )
    return RuntimeFailure("pip failed", where=log, fix="run it again; pip's log has the details", tail=tail)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
