"""The transport verdict of real engines: what is forced is what is read, and a floor that is not met ends the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynctl.hardware.discover import discover
from tests.e2e.deployment import Deployment, deployed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_tcp_when_ucx_is_told_so(directory: Path, engine_python: str) -> None:
    """UCX_TLS=tcp in transport.env turns the verdict to tcp."""
    with deployed("cpu-1p1d", directory, engine_python, "transport.env.UCX_TLS=tcp") as run:
        status = run.status()
        assert status["transport"]["verdict"] == "tcp"
        assert "tcp/" in status["transport"]["evidence"][0]["line"]


@pytest.mark.skipif(not discover().cma.allowed, reason="this host forbids CMA: shm can't be required here")
def test_shm_required_and_tcp_forced(directory: Path, engine_python: str) -> None:
    """The floor is held against what UCX does: exit 4, evidence, everything torn down."""
    run = Deployment("cpu-1p1d", directory, engine_python, ("transport.env.UCX_TLS=tcp", "transport.require=shm"))
    done = run.up()
    assert done.returncode == 4, done.stderr
    assert "goes over tcp; shm is required" in done.stderr
    assert "tcp/" in done.stderr
    assert run.processes() == []


@pytest.mark.skipif(discover().has_rdma(), reason="this machine has RDMA")
def test_rdma_required_where_there_is_none(directory: Path, engine_python: str) -> None:
    """Refused before anything starts, with what was looked at and what to do."""
    run = Deployment("cpu-1p1d", directory, engine_python, ("transport.require=rdma",))
    done = run.up()
    assert done.returncode == 4, done.stderr
    assert "/sys/class/infiniband" in done.stderr
    assert "fix" in done.stderr
    assert run.processes() == []


def test_push_moves_the_same_cache(directory: Path, engine_python: str) -> None:
    """`direction: push`: prefill WRITEs; verified like a pull."""
    with deployed("cpu-1p1d", directory, engine_python, "transport.direction=push") as run:
        status = run.status()
        assert status["verify"]["state"] == "passed"
        assert status["transport"]["pairs"][0]["bytes"] > 0
