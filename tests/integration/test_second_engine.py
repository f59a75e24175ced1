"""Another engine is another adapter: planned, started, watched and served through the same seam."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import httpx
import pytest

from dynctl.engines import registry
from dynctl.engines.base import EngineContext
from dynctl.engines.spec import LogCause, LogPhase, Probes, ProcessSpec, Role, Seat
from dynctl.plan.resolve import resolve
from dynctl.plan.values import Plan
from dynctl.preflight.gather import gather
from dynctl.runtime.client import Connection
from dynctl.runtime.launch import launch
from dynctl.runtime.messages import Failed, FromSupervisor, Gone, Ready
from dynctl.topology.load import load
from dynctl.topology.schema import Topology
from tests.integration.run_harness import Home

ECHO = '''
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Echo(BaseHTTPRequestHandler):
    def do_GET(self):
        self.say({"data": [{"id": sys.argv[2]}]} if self.path == "/v1/models" else {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.say({"choices": [{"index": 0, "text": body["prompt"]}]})

    def say(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

print("warming up", flush=True)
if sys.argv[3:] == ["--broken"]:
    sys.exit("the warp core is missing")
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
'''


class EchoEngine:
    """Answers with the prompt. It has one port, no metrics, and needs nothing but Python."""

    name = "sglang"
    owned_flags = {"port": "ports are allocated"}  # noqa: RUF012
    must_agree: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, script: Path) -> None:
        self._script = script

    def packages(self, topology: Topology) -> tuple[str, ...]:
        return ()

    def port_needs(self, topology: Topology, role: Role) -> dict[str, int]:
        return {"http": 1}

    def block_tokens(self, topology: Topology, role: Role, *, on_gpu: bool) -> int:
        return 0

    def value_type(self, topology: Topology, role: Role, *, on_gpu: bool) -> tuple[str | None, str | None]:
        return None, None

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        port = seat.ports["http"]
        flags = [f"--{flag}" for flag in topology.role(seat.role).args]
        return ProcessSpec(
            id=seat.id,
            role=seat.role,
            argv=(context.python, str(self._script), str(port), topology.served_name, *flags),
            ports=seat.ports,
            probes=Probes(url=f"http://127.0.0.1:{port}", metrics=None),
            log_phases=(LogPhase("warming up", "warming up"),),
            log_causes=(LogCause("warp core", "there is no warp core", "buy one"),),
        )


@pytest.fixture
def echo(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home in which `engine: sglang` is the echo engine, and an interpreter that has no vLLM."""
    script = home.dir / "echo.py"
    script.write_text(ECHO)
    for name in set(os.environ) - set(home.env):
        monkeypatch.delenv(name)
    for name, value in {**home.env, "DYNCTL_ENGINE_PYTHON": sys.executable}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setitem(registry.ADAPTERS, "sglang", EchoEngine(script))
    return home


def start(home: Home, **role: object) -> tuple[Plan, Connection]:
    """Plans and launches it, as `up` does."""
    topology = load(home.topology({"engine": "sglang", "roles": {"worker": role}}, aggregated=True), [])
    plan = resolve(topology, gather(topology))
    return plan, launch(plan)


def outcome(connection: Connection) -> FromSupervisor:
    """Ready, or the failure."""
    with connection:
        return next(m for m in connection.messages() if isinstance(m, Ready | Failed | Gone))


def test_it_is_started_and_serves(echo: Home) -> None:
    plan, connection = start(echo, workers=2)
    assert [process.id for process in plan.processes] == ["worker-0", "worker-1", "frontend"]
    assert isinstance(outcome(connection), Ready)
    answer = echo.ask("to be heard")
    assert answer.json()["choices"][0]["text"] == "to be heard"
    status = echo.status()
    assert status["state"] == "ready"
    assert any(e.get("phase") == "warming up" for e in echo.events())
    assert httpx.get(f"{echo.url}/metrics", timeout=30, trust_env=False).status_code == 200
    assert echo.run("down", echo.name).code == 0
    echo.nothing_left()


def test_its_death_is_explained_by_its_own_causes(echo: Home) -> None:
    _, connection = start(echo, args={"broken": None})
    failed = outcome(connection)
    assert isinstance(failed, Failed)
    assert "worker-0 died while warming up" in failed.cause
    assert (failed.why, failed.fix) == (("there is no warp core",), "buy one")
    echo.nothing_left()
