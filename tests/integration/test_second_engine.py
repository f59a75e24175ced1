"""Another engine is another adapter: planned, started, watched and served through the same seam."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx

from tests.integration.run_harness import Home, Result
from tests.integration.test_up_failures import failed

ROOT = Path(__file__).parents[2]


def up(home: Home, **role: object) -> Result:
    """`up -d` where `engine: sglang` is the echo engine, with an interpreter that has no vLLM."""
    file = home.topology({"engine": "sglang", "roles": {"worker": role}}, aggregated=True)
    env = {"DYNCTL_ENGINE_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    return home.python("-m", "tests.integration.echo_engine", "up", "-d", file, env=env).wait()


def test_it_is_started_and_serves(home: Home) -> None:
    done = up(home, workers=2)
    assert done.code == 0, done.err
    answer = home.ask("to be heard")
    assert answer.json()["choices"][0]["text"] == "to be heard"
    status = home.status()
    assert status["state"] == "ready"
    assert [process["id"] for process in status["processes"]] == ["worker-0", "worker-1", "frontend"]
    assert any(e.get("phase") == "warming up" for e in home.events())
    assert httpx.get(f"{home.url}/metrics", timeout=30, trust_env=False).status_code == 200
    assert home.run("down", home.name).code == 0
    home.nothing_left()


def test_its_death_is_explained_by_its_own_causes(home: Home) -> None:
    error = failed(home, up(home, args={"broken": None}), 1)
    assert "worker-0 died while warming up" in error["error"][0]
    assert (error["why"], error["fix"]) == (["there is no warp core"], ["buy one"])


def test_its_owned_flags_are_refused(home: Home) -> None:
    done = up(home, args={"port": 1})
    assert done.code == 2
    assert "ports are allocated" in done.error()["fix"][0]
