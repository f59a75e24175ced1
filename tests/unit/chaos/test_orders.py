"""What the fault matrix has real engines do, as far as that can be seen without one; and its table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import orders, table

CORE = """
class EngineCore:
    def preprocess_add_request(self, request):
        return request
    def step(self):
        return "stepped"
    step_with_batch_queue = step
"""
USES = """
import time
from vllm.v1.engine.core import EngineCore
core = EngineCore()
print([core.preprocess_add_request(n) for n in range(3)], core.step(), flush=True)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """A directory whose Python has something named as vLLM's engine core."""
    package = tmp_path / "vllm" / "v1" / "engine"
    package.mkdir(parents=True)
    for directory in (package, package.parent, package.parent.parent):
        (directory / "__init__.py").touch()
    (package / "core.py").write_text(CORE)
    return tmp_path


def run(engine: Path) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": f"{orders.hook(engine)}:{engine}", "DYNCTL_PROCESS": "decode-0"}
    return subprocess.run(
        [sys.executable, "-c", USES], check=False, env=env, capture_output=True, text=True, timeout=60
    )


def test_without_orders_nothing_is_changed(engine: Path) -> None:
    orders.give(engine, "prefill-0", die_at_phase="config")
    done = run(engine)
    assert (done.returncode, done.stdout) == (0, "[0, 1, 2] stepped\n"), done.stderr


def test_orders_are_followed_until_they_are_taken_back(engine: Path) -> None:
    orders.give(engine, "decode-0", die_at_phase="config")
    assert run(engine).returncode == 1
    orders.take_back(engine)
    assert run(engine).returncode == 0


def test_a_crash_happens_once(engine: Path) -> None:
    orders.give(engine, "decode-0", crash_on_request=2)
    assert run(engine).returncode == -11
    assert run(engine).returncode == 0


def test_rows_of_real_engines_say_so() -> None:
    row = dict.fromkeys(table.COLUMNS) | {"fault": "decode-0 SIGKILL"}
    assert table.line({**row, "engine": "vllm"}).startswith("| vLLM: decode-0 SIGKILL | ")
    assert table.line({**row, "engine": "fake"}).startswith("| decode-0 SIGKILL | ")
