"""A real deployment of two workers: served, measured, proven, degraded, healed, ended."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import openai
import psutil
import pytest

from dynctl.plan.values import Plan
from dynctl.proof.client import ProofClient, ProofError
from dynctl.proof.verify import verify_pair
from tests.e2e.deployment import ROOT, Deployment, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

HEAL_S = 240.0
T = TypeVar("T")


@pytest.fixture
def client(cpu_1p1d: Deployment) -> openai.OpenAI:
    """The OpenAI SDK, pointed at the frontend."""
    return openai.OpenAI(base_url=f"{cpu_1p1d.url}/v1", api_key="none", max_retries=0, timeout=120)


def test_sdk_streams_a_chat(client: openai.OpenAI) -> None:
    """Chat completions, streamed, with usage."""
    stream = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Tell me of rivers and stones."}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_sdk_streamed_and_whole_completions_agree(client: openai.OpenAI) -> None:
    """Greedy completions give the same text streamed and not."""
    ask: dict[str, Any] = {"model": "tiny", "prompt": "A lantern in the harbour", "max_tokens": 10, "temperature": 0}
    whole = client.completions.create(**ask).choices[0].text
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**ask, stream=True))
    assert whole == streamed
    assert whole


def test_engine_errors_keep_their_status_and_shape(client: openai.OpenAI) -> None:
    """A model that is not served is the engine's own 404, as the SDK expects it."""
    with pytest.raises(openai.NotFoundError) as error:
        client.completions.create(model="nobody", prompt="x")
    assert "nobody" in str(error.value)


def test_status_names_the_transport_and_verification(cpu_1p1d: Deployment) -> None:
    """Every pair has a verdict read from UCX, with its evidence; tokens were verified."""
    status = cpu_1p1d.status()
    assert status["state"] == "ready"
    (pair,) = status["transport"]["pairs"]
    assert (pair["from"], pair["to"]) == ("prefill-0", "decode-0")
    assert pair["verdict"] in {"shm", "tcp"}
    assert pair["bytes"] > 0
    assert any("get" in item["line"] or "memory" in item["line"] for item in pair["evidence"])
    assert status["verify"]["state"] == "passed"
    assert status["verify"]["tokens"] > 0


def test_the_split_adds_up(cpu_1p1d: Deployment, client: openai.OpenAI) -> None:
    """After some traffic the window holds TTFT and its parts."""
    for at in range(5):
        list(client.completions.create(model="tiny", prompt=f"{at} " * 150, max_tokens=8, stream=True))

    def measured() -> dict[str, Any] | None:
        ttft: dict[str, Any] = cpu_1p1d.status()["ttft_ms"]
        return ttft if ttft["requests"] >= 5 and ttft["window"].get("transfer") else None

    ttft = until(measured, 60)
    assert 0 < ttft["p50"] <= ttft["p99"]
    assert all(ttft["split"][part] is not None for part in ("queue", "prefill", "handover"))
    assert ttft["window"]["gigabytes_per_s"] > 0
    metrics = httpx.get(f"{cpu_1p1d.url}/metrics", trust_env=False).text
    assert "dynctl_ttft_handover_seconds" in metrics


def test_bench_measures_it_and_its_files_are_used_again(cpu_1p1d: Deployment) -> None:
    """By name: exact prompts, every request's split, KV as the engine counts it. Then `bench diff` and `size`."""
    load = ("--isl", "96", "--osl", "12", "--concurrency", "2", "--requests", "30", "--json")
    found = []
    for folder in ("old", "new"):
        done = cpu_1p1d.dynctl("bench", cpu_1p1d.name, *load, "--output", folder)
        assert done.returncode in (0, 1), done.stderr  # 1: this machine was so busy that the loader was late
        found.append(json.loads(done.stdout))
        assert {problem["id"] for problem in found[-1]["problems"]} <= {"client_lag", "client_cpu"}
        (run,) = found[-1]["runs"]
        assert (run["requests"], run["failed"]) == (30, 0)
        assert run["split"]["records"] == 30
        assert run["split"]["modes"] == {"disaggregated": 30}
        assert run["kv"]["transfers"] >= 30
        assert run["kv"]["gigabytes_per_s"] > 0
        assert not any("longer or shorter" in note for note in found[-1]["notes"]), "prompts are exact"
        assert {load["id"] for load in run["worker_load"]} == {"prefill-0", "decode-0"}
    diff = json.loads(cpu_1p1d.dynctl("bench", "diff", "old", "new", "--json").stdout)
    assert diff["loads"][0]["load"] == "concurrency 2"
    sized = cpu_1p1d.dynctl("size", "--from-bench", "new", "--gpus", "8", "--model", "m", "-o", "split.yaml", "--json")
    assert sized.returncode == 0, sized.stderr
    best = json.loads(sized.stdout)["best"]
    assert best["prefill"] + best["decode"] <= 8
    checked = cpu_1p1d.dynctl("validate", "split.yaml")
    assert checked.returncode == 0, checked.stderr


def test_every_socket_listens_on_loopback(cpu_1p1d: Deployment) -> None:
    """Engines, side channels, NIXL's and UCX's own sockets: nothing listens beyond this host."""
    listening = [
        connection.laddr
        for process in cpu_1p1d.processes()
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 5
    assert [address for address in listening if address.ip not in {"127.0.0.1", "::1"}] == []


def test_events_are_json_lines(cpu_1p1d: Deployment) -> None:
    """The log tells the way to ready."""
    events = [json.loads(line) for line in cpu_1p1d.dynctl("events", "--json").stdout.splitlines()]
    kinds = [event["kind"] for event in events]
    assert kinds[0] == "run.state"
    assert {"process.state", "process.phase", "gate", "pair", "verify"} <= set(kinds)
    assert any(event.get("phase") == "loading weights" for event in events)


def test_decode_serves_alone_while_prefill_is_gone_and_it_heals(cpu_1p1d: Deployment, client: openai.OpenAI) -> None:
    """The prefill worker is killed with its whole tree: degraded, said so, served; restarted and proven again."""
    ask: dict[str, Any] = {"model": "tiny", "prompt": "copper willow engine", "max_tokens": 8, "temperature": 0}
    before = client.completions.create(**ask).choices[0].text
    pid = next(p["pid"] for p in cpu_1p1d.status()["processes"] if p["id"] == "prefill-0")
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        process.send_signal(signal.SIGKILL)
    health = until(lambda: _degraded(cpu_1p1d), 30)
    assert "prefill" in health["reason"]
    assert client.completions.create(**ask).choices[0].text == before
    status = until(lambda: _when(cpu_1p1d, "ready"), HEAL_S)
    assert next(p["restarts"] for p in status["processes"] if p["id"] == "prefill-0") == 1
    assert client.completions.create(**ask).choices[0].text == before


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
    """The same comparison that passed on the run's own frontend finds other tokens, or other bytes, behind this one.

    Last in this module: engines whose hand-overs were mixed up keep spinning over what was never fetched.
    """
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


def _degraded(deployment: Deployment) -> dict[str, Any] | None:
    health: dict[str, Any] = httpx.get(f"{deployment.url}/health", trust_env=False).json()
    return health if health["status"] == "degraded" else None


def _when(deployment: Deployment, state: str) -> dict[str, Any] | None:
    status = deployment.status()
    return status if status["state"] == state else None


def until(look: Callable[[], T | None], deadline_s: float) -> T:
    """What `look` finds, as soon as it finds it."""
    deadline = time.monotonic() + deadline_s
    while (found := look()) is None:
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.2)  # poll
    return found
