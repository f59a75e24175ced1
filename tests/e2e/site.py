"""One deployment over several hosts: a state directory of its own for each, one file and one secret for all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import yaml

from dynctl.store.paths import cache_root
from tests.e2e.hosts import Host, hosts
from tests.integration.command import Command, Result, T, until

START_S = 300.0
"""How long real engines may take to be ready, or to be ready again, on a busy machine."""
URL = "http://127.0.0.1:8000"
"""The frontend's, on its own host."""
PROMPTS = [f"{number} lanterns in the harbour, and what the willow said of them " * 6 for number in range(8)]
NOT_INHERITED = ("UCX_", "NIXL_", "VLLM_", "DYNCTL_", "XDG_RUNTIME", "XDG_STATE")


class Answer(msgspec.Struct, frozen=True):
    """What a client got: HTTP status and text, or what went wrong on its side (status 0); times in seconds."""

    prompt: str
    status: int
    text: str
    sent_at: float
    took_s: float


class Site:
    """The hosts by node name. The frontend listens on the loopback of the host `front`."""

    def __init__(self, machines: dict[str, Host], roles: T, front: str, directory: Path, python: str) -> None:
        self.machines, self.front, self.directory, self.name = machines, front, directory, "site"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(NOT_INHERITED)}
        # ranks compile C++ for minutes on their first request, once for all hosts where they share this directory
        compiled = cache_root() / "tests" / "inductor"
        self._env = {
            **kept,
            "DYNCTL_ENGINE_PYTHON": python,
            "NO_COLOR": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(compiled),
        }
        secret = directory / "secret"
        secret.touch(mode=0o600)
        secret.write_text("a secret that all hosts of a test share")
        document: T = {
            "schema": 1,
            "name": self.name,
            "model": "builtin:tiny",
            "secret_file": str(secret),
            "nodes": {name: {"address": host.address} for name, host in machines.items()},
            "frontend": {"on": front},
            "roles": roles,
        }
        self.file = directory / "site.yaml"
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))

    def start(self, node: str, *arguments: str) -> Command:
        """Starts a dynctl command on that node."""
        env = {**self._env}
        for variable, part in (("XDG_STATE_HOME", "state"), ("TMPDIR", "tmp")):
            path = self.directory / node / part
            path.mkdir(parents=True, exist_ok=True)
            env[variable] = str(path)
        return self.machines[node].dynctl(*arguments, env=env, cwd=self.directory)

    def up(self, node: str) -> Command:
        """Starts that node's part, until it is ready."""
        return self.start(node, "up", "-d", str(self.file))

    def dynctl(self, node: str, *arguments: str) -> Result:
        """Runs a dynctl command on that node to its end."""
        return self.start(node, *arguments).wait()

    def status(self, node: str) -> T:
        """The status as that node tells it."""
        found: T = self.dynctl(node, "status", self.name, "--json").json()
        return found

    def await_status(self, node: str, accepted: Callable[[T], bool], what: str) -> T:
        """The first status of that node that is accepted."""
        last: T = {}

        def look() -> T | None:
            nonlocal last
            last = self.status(node)
            return last if accepted(last) else None

        try:
            found: T = until(look, what, START_S)
        except AssertionError as error:
            told = self.dynctl(node, "events", self.name).out
            raise AssertionError(f"{error}: {last.get('state')}, {last.get('reason')}\n{told[-3000:]}") from None
        return found

    def events(self, node: str) -> list[T]:
        """The event log of that node's part."""
        return [msgspec.json.decode(line) for line in self.dynctl(node, "events", self.name, "--json").out.splitlines()]

    def nothing_left(self) -> None:
        """No process is left on any host."""
        for host in self.machines.values():
            until(lambda host=host: not host.processes(), f"the processes of {host.name} end")

    @contextmanager
    def clients(self, count: int = 1) -> Iterator[ThreadPoolExecutor]:
        """Threads on the frontend's host."""
        with self.machines[self.front].threads(count) as threads:
            yield threads

    def ask(self, prompt: str, *, stream: bool = False) -> Answer:
        """A greedy completion."""
        with self.clients() as threads:
            return threads.submit(complete, prompt, stream=stream).result()

    def load(self, threads: ThreadPoolExecutor, prompts: Sequence[str], count: int, go_on: Callable[[], bool]) -> Load:
        """As many clients as `count`, each with one request at a time, for as long as it is said."""
        return [threads.submit(_client, prompts, number, go_on) for number in range(count)]


Load = list[Future[list[Answer]]]


def complete(prompt: str, *, salt: str = "", url: str = URL, stream: bool = False) -> Answer:
    """One greedy completion of the frontend on this thread's host. `salt`: so that no prefix cache has it."""
    body: dict[str, Any] = {"model": "tiny", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
    body |= {"stream": stream, **({"cache_salt": salt} if salt else {})}
    begin = time.monotonic()
    try:
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=START_S, trust_env=False) as answer:
            status, text = answer.status_code, answer.read().decode()
    except httpx.HTTPError as error:
        status, text = 0, repr(error)
    if status == 200:
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        pieces = [msgspec.json.decode(line) for line in lines or [text]]
        broken = [piece for piece in pieces if "error" in piece]
        status = 0 if broken else status
        text = str(broken) if broken else "".join(piece["choices"][0]["text"] for piece in pieces)
    return Answer(prompt, status, text, begin, time.monotonic() - begin)


def _client(prompts: Sequence[str], number: int, go_on: Callable[[], bool]) -> list[Answer]:
    answers: list[Answer] = []
    while go_on():
        prompt = prompts[len(answers) % len(prompts)]
        salt = f"{number}.{len(answers)}.{time.monotonic()}"
        answers.append(complete(prompt, salt=salt, stream=number % 2 == 0))
    return answers


@contextmanager
def site(roles: T, front: str, directory: Path, python: str) -> Iterator[Site]:
    """The hosts that `roles` name, up and joined; nothing is started on them. All is gone afterwards."""
    ends = sorted({node for role in roles.values() for node in role["on"]})
    with hosts(ends, own_pids=True) as machines:
        yield Site(dict(zip(ends, machines, strict=True)), roles, front, directory, python)
