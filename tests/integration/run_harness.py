"""A home of its own for each test: state, cache, sockets, ports and run name, and the command line run inside it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
import sys
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import yaml

from dynctl.errors import DynctlError
from dynctl.runtime.client import ask_status
from dynctl.runtime.health import CANARY_ID
from dynctl.store.run import RunStore
from tests.integration.command import PATIENCE_S, Command, Result, T, has_ended, until

__all__ = ["PATIENCE_S", "Command", "Home", "Result", "T", "has_ended", "until"]

MARK = "DYNCTL_TEST_HOME"
"""In the environment of everything that a test starts, whatever becomes of its parents."""
FRONTEND_PORTS = range(30000, 32768)
"""Above the ports that runs are given, below those that the kernel gives to clients."""
_NOT_INHERITED = ("DYNCTL_", "FAKE_ENGINE_", "UCX_", "NIXL_", "VLLM_", "XDG_", "HF_")
_ports = itertools.count(os.getpid() % 1000)


class Home:
    """One test's world. `name` is that of its run."""

    def __init__(self, python: str, model: Path, worker: int = 0, workers: int = 1) -> None:
        # short: the control socket's path has a limit
        self.dir = Path(tempfile.mkdtemp(prefix="dyn", dir="/tmp"))
        self.model = model
        self._share = (worker, workers)
        self.commands: list[Command] = []
        self.inside: tuple[str, ...] = ()  # the start of every command line: what runs it on another host
        self.name = self.new_name()
        self.port = self.free_port()
        for part in ("state", "cache", "tmp", "record", "work"):
            (self.dir / part).mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_INHERITED)}
        self.env = {
            **kept,
            MARK: str(self.dir),
            "XDG_STATE_HOME": str(self.dir / "state"),
            "XDG_CACHE_HOME": str(self.dir / "cache"),
            "TMPDIR": str(self.dir / "tmp"),
            "DYNCTL_ENGINE_PYTHON": python,
            "FAKE_ENGINE_CONTROL": str(self.dir / "control.json"),
            "FAKE_ENGINE_RECORD": str(self.dir / "record"),
            "NO_COLOR": "1",
        }

    # what goes in

    def new_name(self) -> str:
        """A run's name. Parallel tests plan their ports from different windows, which follow from the name."""
        worker, workers = self._share
        while True:
            name = f"t{uuid.uuid4().hex[:10]}"
            if zlib.crc32(name.encode()) % 100 * workers // 100 == worker:
                return name

    def free_port(self) -> int:
        """A port for a frontend, from this test process's share of them."""
        worker, workers = self._share
        while True:
            port = FRONTEND_PORTS[(next(_ports) * workers + worker) % len(FRONTEND_PORTS)]
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port

    def topology(self, changes: T | None = None, *, aggregated: bool = False, file: str = "topology.yaml") -> Path:
        """A topology file: one prefill and one decode worker of the fake model, with `changes` merged in."""
        role: T = {"workers": 1}
        roles: T = {"worker": role} if aggregated else {"prefill": role, "decode": dict(role)}
        base: T = {
            "schema": 1,
            "name": self.name,
            "model": str(self.model),
            "served_name": "fake",
            "frontend": {"port": self.port},
            "roles": roles,
        }
        path = self.dir / "work" / file
        path.write_text(yaml.safe_dump(merged(base, changes or {}), sort_keys=False))
        return path

    def control(self, **knobs: Any) -> None:
        """What the fake engines do from now on: knobs of all, or sections by role or port."""
        partial = self.dir / "control.partial"
        partial.write_text(json.dumps(knobs))
        partial.rename(self.dir / "control.json")

    def hook(self, command: str, code: str) -> None:
        """Runs `code` first in every `dynctl <command>` from here on: faults that no input brings about."""
        hooks = self.dir / "hooks"
        hooks.mkdir(exist_ok=True)
        inner = "".join(f"    {line}\n" for line in code.splitlines())
        with (hooks / "sitecustomize.py").open("a") as file:
            file.write(f"import sys\nif {command!r} in sys.orig_argv:\n{inner}")
        self.env["PYTHONPATH"] = str(hooks)

    # commands

    def start(self, *arguments: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> Command:
        """Starts `dynctl` with these arguments."""
        return self.python("-m", "dynctl", *arguments, env=env, **options)

    def python(self, *arguments: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> Command:
        """Starts Python in this world. What still runs at the test's end is killed."""
        argv = [*self.inside, sys.executable, *map(str, arguments)]
        self.commands.append(Command(argv, {**self.env, **(env or {})}, self.dir / "work", **options))
        return self.commands[-1]

    def run(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Result:
        """Runs `dynctl` to its end."""
        return self.start(*arguments, env=env).wait()

    def up(self, changes: T | None = None, *arguments: str, aggregated: bool = False) -> None:
        """`up -d` of the usual topology, which must become ready."""
        done = self.run("up", "-d", self.topology(changes, aggregated=aggregated), *arguments)
        assert done.code == 0, f"{done.out}\n{done.err}\n{self.logs()}"

    def status(self) -> T:
        """`status --json`, whatever its exit code."""
        done = self.run("status", self.name, "--json")
        assert done.code in (0, 5), done.err
        found: T = done.json()
        return found

    def await_status(self, accepted: Callable[[T], bool], what: str) -> T:
        """The first status that is accepted."""

        def look() -> T | None:
            glanced = self._glance()
            if glanced and not accepted(glanced):
                return None
            found = self.status()
            return found if accepted(found) else None

        found: T = until(look, what, pause_s=0.1)
        return found

    def _glance(self) -> T | None:
        """What `status` would print, for a hundredth of its CPU time; None where the supervisor can't be asked so."""
        with contextlib.suppress(DynctlError, OSError, ValueError):
            status = ask_status(RunStore(self.name, self.run_dir).record().socket)
            found: T = json.loads(msgspec.json.encode(status))
            return found
        return None

    # what comes out

    @property
    def url(self) -> str:
        """The frontend's."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def run_dir(self) -> Path:
        """The run's directory on disk."""
        (found,) = (self.dir / "state" / "dynctl").glob(f"*/{self.name}")
        return found

    def ask(self, prompt: str = "a word or two", max_tokens: int = 8, **more: Any) -> httpx.Response:
        """A completion by the frontend, not streamed."""
        body = {"model": "fake", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, **more}
        return httpx.post(f"{self.url}/v1/completions", json=body, timeout=PATIENCE_S, trust_env=False)

    def stream(self, prompt: str = "a word or two", max_tokens: int = 8, **more: Any) -> Iterator[str]:
        """The data lines of a streamed completion, as they come."""
        body = {"model": "fake", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True, **more}
        url = f"{self.url}/v1/completions"
        with httpx.stream("POST", url, json=body, timeout=PATIENCE_S, trust_env=False) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield line.removeprefix("data: ")

    def events(self) -> list[T]:
        """The run's events on disk."""
        lines = (self.run_dir / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def states(self, process: str | None = None) -> list[str]:
        """The states that a process, or the run, went through."""
        kind = "process.state" if process else "run.state"
        return [e["state"] for e in self.events() if e["kind"] == kind and e.get("process") == process]

    def requests(self, role: str) -> list[T]:
        """Requests that the workers of a role finished, but for canaries."""
        files = (self.dir / "record").glob(f"{role}-*.jsonl")
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        finished = [line for line in lines if line["event"] == "finished"]
        return [line for line in finished if CANARY_ID not in str(line.get("request_id"))]

    def logs(self) -> str:
        """The ends of all logs, for a failing test to show."""
        files = sorted((self.dir / "state").glob("dynctl/*/*/logs/*.log"))
        return "\n".join(f"--- {f.stem}\n{f.read_text(errors='replace')[-2000:]}" for f in files)

    def processes(self) -> list[psutil.Process]:
        """Everything alive that was started from here, or by what was: by environment, or by the fake's titles."""
        mark = f"{MARK}={self.dir}".encode()
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    process = psutil.Process(pid)
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def nothing_left(self) -> None:
        """Waits until every process is gone."""

        def gone() -> bool:
            return not self.processes()

        try:
            until(gone, "every process of the test ends", 20.0)
        except AssertionError:
            left = [(p.pid, " ".join(p.cmdline())[:200]) for p in self.processes()]
            raise AssertionError(f"left over: {left}\n{self.logs()}") from None

    def close(self) -> None:
        """Ends what is left of the test's runs, by the means that users have; nothing may be left after that."""
        for command in self.commands:
            command.process.kill()
            command.process.wait()
        try:
            for record in (self.dir / "state").glob("dynctl/*/*/run.json"):
                if self.processes():
                    self.run("down", record.parent.name, "--kill")
            self.nothing_left()
        finally:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            shutil.rmtree(self.dir, ignore_errors=True)


def merged(base: T, changes: T) -> T:
    """`changes` over `base`; None takes a key away."""
    out = dict(base)
    for key, value in changes.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = value
    return out
