"""`dynctl check-rdma` on one node, with the real NIXL and UCX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dynctl.hardware.discover import discover
from tests.e2e.deployment import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(discover().has_gpu(), reason="for machines without a GPU")]
PROFILE = str(ROOT / "profiles/cpu-1p1d.yaml")
Done = subprocess.CompletedProcess[str]


def check(python: str, directory: Path, *arguments: str) -> Done:
    env = {**os.environ, "DYNCTL_ENGINE_PYTHON": python, "XDG_STATE_HOME": str(directory), "NO_COLOR": "1"}
    env = {name: value for name, value in env.items() if not name.startswith("UCX_")}
    done = subprocess.run(
        [sys.executable, "-m", "dynctl", "check-rdma", *arguments],
        env=env, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, cwd=directory, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def document(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not discover().cma.allowed, reason="this host forbids CMA")
def test_shared_memory_is_proven(engine_python: str, directory: Path) -> None:
    page = directory / "report.html"
    done = check(engine_python, directory, PROFILE, "--size", "4M", "--report", str(page))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok: shm (CMA), ")
    assert "cma/memory" in done.stdout
    assert "proving 1/1: prefill-0 -> decode-0: read" in done.stderr
    assert "cma/memory" in page.read_text()


def test_without_a_file_it_checks_what_fits(engine_python: str, directory: Path) -> None:
    found = document(check(engine_python, directory, "--size", "1M", "--both", "--json"))
    assert [(pair["from"], pair["to"], pair["direction"]) for pair in found["pairs"]] == [
        ("prefill-0", "decode-0", "read"),
        ("prefill-0", "decode-0", "write"),
    ]
    assert all(pair["gigabytes_per_s"] > 0 and pair["size_bytes"] == 1 << 20 for pair in found["pairs"])
    assert next(library for library in found["ucx"] if library["used"])["version"]


@pytest.mark.skipif(discover().has_rdma(), reason="this machine has RDMA")
def test_rdma_is_required_where_there_is_none(engine_python: str, directory: Path) -> None:
    done = check(engine_python, directory, PROFILE, "--size", "1M", "--require", "rdma", "--json")
    assert done.returncode == 4
    found = document(done)
    assert (found["ok"], found["required"]) == (False, "rdma")
    assert found["pairs"][0]["verdict"] in ("shm", "tcp")
    failed = {row["id"]: row for row in found["checks"] if row["status"] == "fail"}
    assert {"dev", "pair"} <= set(failed)
    assert all(row["cause"] and row["fix"] for row in failed.values())


def test_tcp_where_ucx_is_told_so(engine_python: str, directory: Path) -> None:
    done = check(engine_python, directory, PROFILE, "--size", "1M", "--set", "transport.env.UCX_TLS=tcp")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok: tcp (loopback), ")
    assert "tcp/lo" in done.stdout


@pytest.mark.skipif(discover().has_rdma(), reason="this machine has RDMA")
def test_a_fallback_that_ucx_keeps_quiet_about(engine_python: str, directory: Path) -> None:
    done = check(engine_python, directory, PROFILE, "--size", "1M", "--json", "--set", "transport.env.UCX_TLS='rc,tcp'")
    found = document(done)
    tls = next(row for row in found["checks"] if row["id"] == "tls")
    assert found["verdict"] == "tcp"
    assert "fell back to tcp" in tls["cause"]


@pytest.mark.skipif(discover().has_rdma(), reason="this machine has RDMA")
def test_a_transport_that_cannot_work(engine_python: str, directory: Path) -> None:
    done = check(engine_python, directory, PROFILE, "--size", "1M", "--json", "--set", "transport.env.UCX_TLS=rc")
    assert done.returncode == 4
    found = document(done)
    assert found["verdict"] == "unknown"
    assert "rc" in found["pairs"][0]["error"]
