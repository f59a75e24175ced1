"""A second, trivial engine: it answers with the prompt. Its adapter shows what an engine has to bring, and no more."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from dynctl.engines import registry
from dynctl.engines.base import BuiltinRouter, EngineContext
from dynctl.engines.spec import LogCause, LogPhase, Probes, ProcessSpec, Role, Seat
from dynctl.topology.schema import Topology

SERVER = """
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
"""


class EchoEngine(BuiltinRouter):
    """It has one port, no metrics, and needs nothing but Python."""

    name = "sglang"
    owned_flags: Mapping[str, str] = {"port": "ports are allocated"}
    must_agree: Mapping[str, str] = {}

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


def dynctl_with_echo() -> int:
    """`dynctl` as it would be with this adapter in its registry: for the engine that has none yet."""
    from dynctl.cli import app

    script = Path.cwd() / "echo.py"
    script.write_text(SERVER)
    registry.ADAPTERS["sglang"] = EchoEngine(script)
    return app.run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(dynctl_with_echo())
