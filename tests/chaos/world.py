"""A deployment that faults are brought upon, and what can be seen of it: two prefill workers (of real engines one), two
decode workers."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psutil

from dynctl.engines.vllm import VITAL
from dynctl.errors import DynctlError
from dynctl.runtime.client import ask_status
from dynctl.telemetry.status import ProcessStatus, RunStatus
from tests.chaos import orders
from tests.chaos.ends import Ends
from tests.chaos.load import Load
from tests.fakes.fake_engine.tokens import Model, decode, encode
from tests.integration.run_harness import Home, T, until

CANARY_S = 1.0
STALL_S = 4.0
REAL_CANARY_S = 5.0
"""The default: on a machine with few cores a real engine's answers take long."""
REAL_PAUSE_S = 1.5
"""Between a client's requests: on two cores a worker's start competes with the load."""
HANGS_S = 15.0
"""A fake engine that shows no progress for so long hangs in its start."""
TOKENS = 24
TOKEN_MS = 8
RULE = {"max": 20, "backoff": "200ms", "cap": "1s"}


class World:
    """One deployment. Engines can be told to misbehave, `fake` ones in more ways."""

    def __init__(self, home: Home, *, fake: bool, deadline_s: float, clients: int = 4) -> None:
        self.home, self.fake, self.deadline_s, self.clients = home, fake, deadline_s, clients
        self.canary_s = CANARY_S if fake else REAL_CANARY_S
        self.heal_s = 60.0 if fake else 300.0
        self.notice_s = 15.0 if fake else 45.0
        self.up_s = 120.0 if fake else 420.0
        self._prompts: list[tuple[str, str]] = []
        self._knobs: dict[str, Any] = {"token_delay_ms": TOKEN_MS}
        self.home.control(**self._knobs)

    def topology(self, changes: T | None = None) -> T:
        """What is changed of the harness's usual topology."""
        if not self.fake:
            env = {"PYTHONPATH": str(orders.hook(self.home.dir))}
            roles = {
                "prefill": {"workers": 1, "restart": RULE, "env": env},
                "decode": {"workers": 2, "restart": RULE, "env": env},
            }
            return {"model": "builtin:tiny", "roles": roles, **(changes or {})}
        role: T = {"workers": 2, "restart": RULE}
        quick = {"health": {"canary": f"{CANARY_S:g}s", "stall": f"{STALL_S:g}s"}, "ready": {"stall": f"{HANGS_S:g}s"}}
        return {
            "roles": {"prefill": role, "decode": dict(role)},
            **quick,
            **(changes or {}),
        }

    def up(self) -> None:
        """Ready, with the answers known."""
        topology = self.home.topology(self.topology())
        done = self.home.start("up", "-d", topology, "--no-preflight", "--no-verify").wait(self.up_s)
        assert done.code == 0, f"{done.out}\n{done.err}\n{self.home.logs()}"
        if not self.fake:
            prompts = [f"{number} little words on their way " * (2 + number % 5) for number in range(10)]
            self._prompts = [(prompt, self._answer(prompt)) for prompt in prompts]

    def load(self) -> Load:
        """A load that begins at once."""
        # a salt for each request: else a worker has the prompt's KV cache already, and nothing is handed over
        salt = (lambda: "") if self.fake else (lambda: uuid.uuid4().hex)
        load = Load(
            self.home.url,
            self._prompt,
            clients=self.clients,
            max_tokens=TOKENS,
            deadline_s=self.deadline_s,
            pause_s=0.05 if self.fake else REAL_PAUSE_S,
            salt=salt,
        )
        load.start()
        return load

    def _prompt(self, number: int) -> tuple[str, str]:
        if not self.fake:
            return self._prompts[number % len(self._prompts)]
        prompt = f"request {number} " + "and on " * (number % 40)
        return prompt, fake_answer(prompt)

    def _answer(self, prompt: str) -> str:
        """What the undisturbed run says to it."""
        text: str = self.home.ask(prompt, max_tokens=TOKENS).json()["choices"][0]["text"]
        return text

    # looking

    def status(self) -> RunStatus | None:
        """The supervisor's word; None where it gives none."""
        try:
            return ask_status(json.loads((self.home.run_dir / "run.json").read_text())["socket"], 2.0)
        except (OSError, ValueError, DynctlError):
            return None

    def process(self, name: str) -> ProcessStatus:
        """A process's row."""
        found: ProcessStatus = next(p for p in self.processes() if p.id == name)
        return found

    def processes(self) -> tuple[ProcessStatus, ...]:
        """All rows."""
        found: tuple[ProcessStatus, ...] = until(self.status, "the supervisor answers", 20.0).processes
        return found

    def pid(self, name: str) -> int:
        """Of a process of the run, of its engine core (`decode-0.core`), or of the supervisor."""
        if name == "supervisor":
            found = until(self.status, "the supervisor answers", 20.0).supervisor.pid
        elif name.endswith(".core"):
            parent = psutil.Process(self.pid(name.removesuffix(".core")))
            found = next(c.pid for c in parent.children(recursive=True) if "EngineCore" in " ".join(c.cmdline()))
        else:
            found = self.process(name).pid
        assert found, f"{name} has no pid"
        return found

    def whole(self) -> bool:
        """Every process is ready."""
        status = self.status()
        return (
            status is not None and status.state == "ready" and all(p.state == "ready" for p in status.processes)
        ) and self.healthy()

    def healthy(self) -> bool:
        """/health says ok."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            answer = httpx.get(f"{self.home.url}/health", timeout=2, trust_env=False)
            return answer.status_code == 200 and answer.json()["status"] == "ok"
        return False

    def noticed_at(self, name: str, since: float) -> float | None:
        """When the run's log first says, after `since`, that this process is not ready (seconds since 1970)."""
        with contextlib.suppress(OSError, ValueError):
            for event in self.home.events():
                mine = event["kind"] == "process.state" and event.get("process") == name.removesuffix(".core")
                if mine and event["at"] >= since and event["state"] != "ready":
                    return float(event["at"])
        return None

    def watch_ends(self, name: str) -> Ends:
        """Of the processes without which this one can't serve: itself and its engine's."""
        pid = self.pid(name.removesuffix(".core"))
        children = psutil.Process(pid).children(recursive=True)
        return Ends([pid, *(child.pid for child in children if child.name().startswith(VITAL))], self.heal_s)

    def orphans(self) -> list[str]:
        """Processes of this world that belong to nothing that is known to run."""
        status = self.status()
        known = {p.pid for p in status.processes if p.pid} | {status.supervisor.pid} if status else set()
        return [f"{p.pid} {p.name()}" for p in self._alive() if not _below(p, known)]

    def _alive(self) -> Iterator[psutil.Process]:
        commands = {command.process.pid for command in self.home.commands}
        for process in self.home.processes():
            if process.pid not in commands:
                yield process

    # doing

    def tell(self, name: str | None = None, **knobs: Any) -> None:
        """What the engine of that name does from now on; without a name, all as at first."""
        if not self.fake:
            orders.give(self.home.dir, name, **knobs) if name else orders.take_back(self.home.dir)
            return
        if name is None:
            self._knobs = {"token_delay_ms": TOKEN_MS}
        else:
            self._knobs[str(self.process(name).ports["http"])] = knobs
        self.home.control(**self._knobs)

    def ended(self, timeout_s: float = 30.0) -> bool:
        """Whether everything is gone in time."""
        return wait_for(lambda: not self.home.processes(), timeout_s)


def fake_answer(prompt: str) -> str:
    """What the fake model says to it."""
    model = Model(encode(prompt))
    return decode(model.next() for _ in range(TOKENS))


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def _below(process: psutil.Process, known: set[int | None]) -> bool:
    with contextlib.suppress(psutil.Error, OSError):
        return bool(known & {process.pid, *(parent.pid for parent in process.parents())} - {1, os.getpid()})
    return True
