"""A run behind the real vllm-router: proven, its health told from outside, its losses told although it says nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from dynctl.preflight.router import VERSION
from tests.integration.run_harness import Home, T, until
from tests.integration.test_degraded import row

KIND = {"frontend": {"kind": "vllm-router"}, "health": {"canary": "1s"}}
NO_RESTART = {"restart": {"max": 1000, "backoff": "600s", "cap": "600s"}}


@pytest.fixture(scope="session")
def router() -> str:
    """The command, installed into the user's cache where it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "dynctl" / "peers" / f"vllm-router-{VERSION}"
    named = os.environ.get("VLLM_ROUTER") or shutil.which("vllm-router")
    if not named and not (home / "bin" / "vllm-router").exists():
        steps = ([sys.executable, "-m", "venv", str(home)], [f"{home}/bin/pip", "install", f"vllm-router=={VERSION}"])
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"vllm-router {VERSION} can't be installed: {done.stderr.strip().splitlines()[-1:]}")
    return named or str(home / "bin" / "vllm-router")


@pytest.fixture
def behind(home: Home, router: str) -> Home:
    """The test's world, with the router in it."""
    home.env["VLLM_ROUTER"] = router
    return home


def health(status: T) -> str:
    found: str = status["frontend"]["health"]
    return found


def test_every_pair_and_a_completion_through_the_router_are_proven(behind: Home) -> None:
    behind.up({**KIND, "roles": {"decode": {"workers": 2}}}, "--verify")
    said = [event for event in behind.events() if event["kind"] in ("gate", "pair", "verify")]
    assert sum(event["kind"] == "pair" for event in said) == 2
    (through,) = (event for event in said if "completion through it" in event["message"])
    assert through["process"] == "frontend"
    assert "moved 0 KV bytes" not in through["message"]
    assert "no metrics" not in through["message"]
    for _ in range(3):
        assert behind.ask("some words", max_tokens=4).status_code == 200
    status = behind.await_status(lambda s: s["frontend"]["requests_total"] == 3, "three requests are counted")
    assert status["state"] == "ready"
    assert status["verify"]["state"] == "passed" or status["verify"]["state"] == "warned"
    assert health(status) == "ok"
    assert status["frontend"]["errors_total"] == 0
    assert len({request["request_id"] for request in behind.requests("decode") if request["kv_bytes"]}) >= 3
    pids = {process["id"]: process["pid"] for process in status["processes"]}
    for order in (("scale", "decode=3", "--run", behind.name), ("drain", behind.name, "decode-1")):
        refused = behind.run(*order)
        assert refused.code == {"scale": 5, "drain": 2}[order[0]], refused.err
        assert "  fix " in refused.err
    assert {process["id"]: process["pid"] for process in behind.status()["processes"]} == pids


def test_a_router_that_is_not_installed_is_said_before_anything_starts(home: Home) -> None:
    done = home.run("up", "-d", home.topology(KIND), env={"VLLM_ROUTER": "/nowhere/vllm-router"})
    assert done.code == 3
    assert "vllm-router is not installed" in done.err
    assert f"pip install vllm-router=={VERSION}" in done.err
    assert "$VLLM_ROUTER" in done.err
    assert not home.processes()


def test_status_is_degraded_while_the_router_says_that_all_is_well(behind: Home) -> None:
    slow = {
        **KIND,
        "roles": {"prefill": NO_RESTART},
        "frontend": {**KIND["frontend"], "args": {"health-check-interval-secs": 600}},
    }
    behind.up(slow)
    os.kill(row(behind.status(), "prefill-0")["pid"], signal.SIGKILL)
    status = behind.await_status(lambda s: s["state"] == "degraded" and health(s) == "down", "it is told")
    assert "no prefill worker is left, no request is served" in status["reason"]
    assert "its own /health says 200" in status["frontend"]["reason"]
    answer = behind.ask()
    assert (answer.status_code, answer.text[:32]) == (500, "Transparent proxy request failed")
    assert httpx.get(f"{behind.url}/health", trust_env=False).text == "All servers healthy"
    failed = behind.await_status(
        lambda s: "a completion through it failed" in (s["frontend"]["reason"] or ""), "the canary fails"
    )
    assert failed["frontend"]["requests_total"] <= 1  # its own canaries are none of the users' requests
    behind.run("restart", behind.name, "prefill-0")
    back = behind.await_status(lambda s: s["state"] == "ready" and health(s) == "ok", "it serves again")
    assert row(back, "frontend")["restarts"] == 0
    until(lambda: behind.ask().status_code == 200, "requests are served")


def test_a_router_that_hangs_is_told_and_restarted(behind: Home) -> None:
    behind.up({**KIND, "health": {"canary": "1s", "stall": "3s"}})
    before = row(behind.status(), "frontend")
    os.kill(before["pid"], signal.SIGSTOP)
    behind.await_status(lambda s: s["state"] == "degraded", "it is told")
    back = behind.await_status(lambda s: s["state"] == "ready" and health(s) == "ok", "it is back")
    assert row(back, "frontend")["pid"] != before["pid"]
    assert sum("completion through it" in event["message"] for event in behind.events()) == 2
