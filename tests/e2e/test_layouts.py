"""The other ready-made CPU topologies, with real engines."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.deployment import deployed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def test_two_prefills_share_a_decode(directory: Path, engine_python: str) -> None:
    """Both pairs are proven, each with a verdict of its own."""
    with deployed("cpu-2p1d", directory, engine_python) as run:
        pairs = run.status()["transport"]["pairs"]
        assert [(pair["from"], pair["to"]) for pair in pairs] == [("prefill-0", "decode-0"), ("prefill-1", "decode-0")]
        assert all(pair["verdict"] in {"shm", "tcp"} and pair["bytes"] > 0 for pair in pairs)


def test_aggregated_serving(directory: Path, engine_python: str) -> None:
    """One worker does both phases: no pairs, no KV transfer, the same frontend."""
    with deployed("cpu-agg", directory, engine_python) as run:
        status = run.status()
        assert status["state"] == "ready"
        assert status["transport"]["pairs"] == []
        body = {"model": "tiny", "prompt": "river", "max_tokens": 4}
        answer = httpx.post(f"{run.url}/v1/completions", json=body, timeout=60, trust_env=False)
        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] >= 1
