"""What `bench --output` keeps, read by the tools whose shape it has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from dynctl.bench.files import write
from tests.unit.bench.arms import result, served


def test_vllm_reads_its_file(engine_python: str, tmp_path: Path) -> None:
    """vLLM's own code works the same figures out of our arrays as stand beside them, and its sweeps and time line take
    the file as one of theirs."""
    arm = served("a layout")
    document = result(arm)
    write(tmp_path, document, [arm])
    (file,) = tmp_path.glob("vllm-*.json")
    script = Path(__file__).with_name("read_vllm_result.py")
    done = subprocess.run([engine_python, script, file], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    found = json.loads(line.removeprefix("FOUND "))
    saved = json.loads(file.read_text())
    assert {name: saved[name] for name in found["figures"]} == pytest.approx(found["figures"], rel=1e-9)
    assert found["skipped"] == 0
    assert found["tokens_per_user"] == pytest.approx(saved["output_throughput"] / 8)
    assert found["concurrency"] == pytest.approx(saved["request_throughput"] * saved["mean_e2el_ms"] / 1000)
    assert found["bars"] == sum(len(gaps) + 1 for gaps in saved["itls"])
