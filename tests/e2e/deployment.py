"""Runs the real `dynctl` command against real engines, in a state directory of the test's own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
COMMAND_TIMEOUT_S = 600


class Deployment:
    """One run: `dynctl` called with this test's state directory and port."""

    def __init__(self, profile: str, directory: Path, python: str, sets: tuple[str, ...] = ()) -> None:
        self.profile, self.directory = ROOT / "profiles" / f"{profile}.yaml", directory
        self.name, self.port = profile, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._sets = (f"frontend.port={self.port}", *sets)
        self.env = {
            **os.environ,
            "XDG_STATE_HOME": str(directory / "state"),
            "TMPDIR": str(directory),
            "DYNCTL_ENGINE_PYTHON": python,
        }

    def dynctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs one command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "dynctl", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
            check=False,
        )

    def up(self, *options: str) -> subprocess.CompletedProcess[str]:
        """`dynctl up -d` with this deployment's overrides."""
        sets = [word for override in self._sets for word in ("--set", override)]
        return self.dynctl("up", "-d", str(self.profile), *sets, *options)

    def status(self) -> dict[str, Any]:
        """`dynctl status --json`."""
        found: dict[str, Any] = json.loads(self.dynctl("status", self.name, "--json").stdout)
        return found

    def processes(self) -> list[psutil.Process]:
        """Every live process of the run, found by the run's id in its environment."""
        found = []
        for record in self.directory.glob("state/dynctl/*/*/run.json"):
            mark = f"DYNCTL_RUN_ID={json.loads(record.read_text())['run_id']}".encode()
            for process in psutil.process_iter():
                try:
                    if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                        found.append(process)
                except OSError:
                    continue
        return found

    def end(self) -> None:
        """`dynctl down`, then nothing may be left."""
        self.dynctl("down", self.name)
        assert self.processes() == []


@contextmanager
def deployed(profile: str, directory: Path, python: str, *sets: str) -> Iterator[Deployment]:
    """A deployment that is ready; ended afterwards whatever happens."""
    deployment = Deployment(profile, directory, python, sets)
    try:
        done = deployment.up()
        assert done.returncode == 0, done.stderr
        yield deployment
    finally:
        deployment.end()


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
