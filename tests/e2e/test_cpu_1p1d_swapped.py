"""Verification can fail: real engines behind a frontend that mixes up two requests' KV caches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from dynctl.plan.values import Plan
from dynctl.proof.client import ProofClient, ProofError
from dynctl.proof.verify import verify_pair
from tests.e2e.deployment import ROOT, Deployment, free_port
from tests.e2e.test_cpu_1p1d import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def run_directory(deployment: Deployment) -> Path:
    """Where the run keeps its plan and token."""
    return next(deployment.directory.glob(f"state/dynctl/*/{deployment.name}"))


@pytest.fixture
def swapping(cpu_1p1d: Deployment) -> Iterator[str]:
    """The URL of a second, broken frontend in front of the run's own workers."""
    plan = msgspec.json.decode((run_directory(cpu_1p1d) / "plan.json").read_bytes(), type=Plan)
    urls = [str(worker.probes.url) for worker in plan.workers()]
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.swapping_frontend", str(port), *urls],
        env={**cpu_1p1d.env, "DYNCTL_TOKEN_FILE": str(run_directory(cpu_1p1d) / "token")},
        cwd=ROOT,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _healthy(url), 60)
        yield url
    finally:
        process.terminate()
        process.wait(60)


async def test_swapped_caches_turn_verification_red(cpu_1p1d: Deployment, swapping: str) -> None:
    """The same comparison that passed on the run's own frontend finds other tokens, or other bytes, behind this one."""
    directory = run_directory(cpu_1p1d)
    plan = msgspec.json.decode((directory / "plan.json").read_bytes(), type=Plan)
    (pair,) = plan.transport.pairs
    metrics = {worker.id: f"{worker.probes.url}/metrics" for worker in plan.workers()}
    token = (directory / "token").read_text()
    async with ProofClient(plan.frontend_url, token, plan.served_name, metrics) as client:
        right = await verify_pair(client, pair, plan.kv, mover=pair.to)
    assert right.divergences == ()
    async with ProofClient(swapping, token, plan.served_name, metrics) as client:
        try:
            wrong = await verify_pair(client, pair, plan.kv, mover=pair.to)
        except ProofError:
            return
    assert wrong.divergences


def _healthy(url: str) -> bool | None:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200 or None
    except httpx.HTTPError:
        return None
