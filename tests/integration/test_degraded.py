"""A ready run that loses something: what still works, what it says, and how it comes back."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from tests.integration.run_harness import Home, T, has_ended, until

SLOW_RESTART = {"restart": {"max": 1000, "backoff": "300ms", "cap": "300ms"}}
NO_HOPE = {"die_at_phase": "config", "die_message": "RuntimeError: no hope"}


def row(status: T, process: str) -> T:
    """A process's row."""
    found: T = next(p for p in status["processes"] if p["id"] == process)
    return found


def kill(home: Home, process: str) -> int:
    """SIGKILL to a process of the run; its pid."""
    pid: int = row(home.status(), process)["pid"]
    os.kill(pid, signal.SIGKILL)
    return pid


def health(home: Home) -> tuple[int, T]:
    """The frontend's /health."""
    answer = httpx.get(f"{home.url}/health", timeout=30, trust_env=False)
    return answer.status_code, answer.json()


def text(home: Home) -> str:
    """Tokens for one prompt, which never change."""
    answer = home.ask("the same words every time " * 12, max_tokens=12)
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["choices"][0]["text"]
    return found


def ready_again(process: str) -> Callable[[T], bool]:
    """Whether the run is ready and that process was restarted."""
    return lambda s: s["state"] == "ready" and row(s, process)["restarts"] > 0


def test_without_prefill_decode_serves_alone_until_it_is_back(home: Home) -> None:
    home.up({"roles": {"prefill": SLOW_RESTART}})
    expected = text(home)
    children = engine_children(home, "prefill")
    home.control(prefill=NO_HOPE)
    kill(home, "prefill-0")
    status = home.await_status(lambda s: s["state"] == "degraded", "the run is degraded")
    assert "decode serves alone" in status["reason"]
    code, said = until(lambda: (found := health(home))[1]["status"] == "degraded" and found, "/health is degraded")
    assert (code, said["reason"]) == (200, "no prefill worker is ready: decode serves alone")
    assert text(home) == expected
    assert home.requests("decode")[-1]["kv_bytes"] == 0
    until(lambda: all(has_ended(child) for child in children), "the killed server's children are ended")

    home.control()
    status = home.await_status(ready_again("prefill-0"), "the run is ready again")
    assert [p["phase"] for p in status["processes"]] == [None, None, None]
    assert health(home)[1]["status"] == "ok"
    assert text(home) == expected
    events = home.events()
    back = max(e["seq"] for e in events if e.get("process") == "prefill-0" and e.get("state") == "starting")
    assert any(e["kind"] == "pair" and e["seq"] > back for e in events), "the pair is proven again"
    assert home.states() == ["starting", "ready", "degraded", "ready"]


def engine_children(home: Home, role: str) -> list[psutil.Process]:
    """The engine core and the worker of the only engine of a role, by what it recorded of itself."""
    (file,) = Path(home.dir / "record").glob(f"{role}-*.json")
    pids = json.loads(file.read_text())["pids"]
    return [psutil.Process(pids["core"]), psutil.Process(pids["worker"])]


def test_children_of_a_killed_server_are_gone_before_it_is_restarted(home: Home) -> None:
    home.up({"roles": {"decode": {"restart": {"backoff": "100ms"}}}})
    old = engine_children(home, "decode")
    assert [child.name() for child in old] == ["VLLM::EngineCore", "VLLM::Worker"]
    kill(home, "decode-0")
    status = home.await_status(ready_again("decode-0"), "decode is back")
    # the old core held the side channel's port: had it stayed, the new one would hang in its start
    assert all(has_ended(child) for child in old)
    assert row(status, "decode-0")["restarts"] == 1
    assert home.ask().status_code == 200


def test_without_decode_nothing_is_served_until_it_is_back(home: Home) -> None:
    home.up({"roles": {"decode": SLOW_RESTART}})
    expected = text(home)
    home.control(decode=NO_HOPE)
    kill(home, "decode-0")
    until(lambda: health(home)[0] == 503, "/health is 503")
    assert health(home)[1]["status"] == "down"
    refused = home.ask()
    assert refused.status_code == 503
    assert refused.json()["error"]["message"]
    home.control()
    home.await_status(ready_again("decode-0"), "decode is back")
    assert text(home) == expected


def test_a_dead_engine_core_is_a_dead_worker(home: Home) -> None:
    home.up({"roles": {"prefill": {"restart": {"backoff": "100ms"}}}})
    engine_children(home, "prefill")[0].kill()
    home.await_status(ready_again("prefill-0"), "prefill is back")
    assert home.ask().status_code == 200


def test_a_worker_that_keeps_dying_is_given_up(home: Home) -> None:
    home.up({"roles": {"prefill": {"restart": {"max": 2, "backoff": "100ms", "cap": "200ms"}}}})
    expected = text(home)
    home.control(prefill=NO_HOPE)
    kill(home, "prefill-0")
    status = home.await_status(lambda s: row(s, "prefill-0")["state"] == "failed", "prefill is given up")
    assert status["state"] == "degraded"
    assert row(status, "prefill-0")["restarts"] == 2
    assert text(home) == expected
    waits = [e["message"] for e in home.events() if e.get("state") == "backing off"]
    for said, number, wait_s in zip(waits, (1, 2), (0.1, 0.2), strict=True):
        match = re.fullmatch(rf"restart {number} of 2 in ([0-9.]+) s", said)
        assert match, said
        assert wait_s <= float(match[1]) <= wait_s * 1.26, "lengthened by jitter"
    given_up = next(e for e in home.events() if e.get("state") == "failed")
    assert given_up["message"] == "crash loop: 2 restarts did not help"
    assert "exit code 1" in given_up["why"]
    (log,) = home.run_dir.glob("logs/prefill-0.log")
    assert "no hope" in log.read_text()
    assert "no hope" in log.with_name("prefill-0.log.1").read_text(), "of the restart before"
    assert home.run("down", home.name).code == 0


def test_a_pair_is_proven_again_under_traffic(home: Home) -> None:
    """Bytes of users' requests are counted by the same engines that the proof reads."""
    home.up({"roles": {"prefill": {"workers": 2, "restart": {"max": 1, "backoff": "100ms"}}}})
    over = threading.Event()
    codes: list[int] = []

    def load(number: int) -> None:
        while not over.is_set():
            codes.append(home.ask(f"{number} {len(codes)} " * 120, max_tokens=2).status_code)

    clients = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for client in clients:
        client.start()
    try:
        kill(home, "prefill-1")
        status = home.await_status(
            lambda s: ready_again("prefill-1")(s) or row(s, "prefill-1")["state"] == "failed", "prefill-1 is back"
        )
    finally:
        over.set()
        for client in clients:
            client.join()
    assert status["state"] == "ready", home.events()[-12:]
    assert set(codes) == {200}


HELD_PROOF = """
import asyncio
from dynctl.proof import pair
prove = pair.PairProver.prove
async def held(self, proven):
    if self.shared and proven.to == "decode-1":
        await asyncio.sleep(3600)
    return await prove(self, proven)
pair.PairProver.prove = held
"""


def test_a_partner_that_dies_during_a_new_proof_holds_nobody_up(home: Home) -> None:
    home.hook("_supervise", HELD_PROOF)
    rule = {"restart": {"max": 1, "backoff": "100ms"}}
    home.up({"roles": {"prefill": rule, "decode": {"workers": 2, **rule}}})
    kill(home, "prefill-0")
    home.await_status(
        lambda s: row(s, "prefill-0")["restarts"] == 1 and row(s, "prefill-0")["phase"] == "proving its pairs",
        "prefill is being proven again",
    )
    home.control(decode=NO_HOPE)
    kill(home, "decode-1")
    status = home.await_status(lambda s: row(s, "prefill-0")["state"] == "ready", "prefill is back")
    assert row(status, "prefill-0")["restarts"] == 1
    assert home.ask().status_code == 200


def test_a_dead_frontend_is_restarted(home: Home) -> None:
    home.up()
    expected = text(home)
    kill(home, "frontend")
    home.await_status(ready_again("frontend"), "the frontend is back")
    until(lambda: health(home)[0] == 200, "/health is 200")
    assert text(home) == expected


def test_workers_outlive_their_supervisor(home: Home) -> None:
    home.up()
    expected = text(home)
    supervisor = psutil.Process(home.status()["supervisor"]["pid"])
    supervisor.kill()
    until(lambda: has_ended(supervisor), "the supervisor is gone")
    assert text(home) == expected
    status = home.status()
    assert status["state"] == "unsupervised"
    assert status["supervisor"]["pid"] is None
    assert all(row(status, p)["pid"] for p in ("prefill-0", "decode-0", "frontend"))
    before = {p.pid for p in home.processes()}
    again = home.run("up", "-d", home.topology({"slo": {"ttft": "1s"}}))
    assert again.code == 5
    assert "unsupervised" in again.error()["error"][0]
    assert "dynctl down" in again.error()["fix"][0]
    assert {p.pid for p in home.processes()} == before
    down = home.run("down", home.name)
    assert down.code == 0, down.err
    home.nothing_left()
    assert home.status()["state"] == "stopped"
    home.up()


def test_everything_killed_at_once_is_a_stopped_run(home: Home) -> None:
    home.up()
    for process in home.processes():
        process.kill()
    home.nothing_left()
    status = home.status()
    assert status["state"] == "stopped"
    assert "without a word" in status["reason"]
    assert home.run("down", home.name).code == 5
    home.up()


def test_a_restart_that_hangs_is_a_failed_restart(home: Home) -> None:
    rule = {"restart": {"max": 1, "backoff": "100ms"}}
    home.up({"roles": {"prefill": rule}, "ready": {"stall": "2s"}})
    home.control(prefill={"hang_at_phase": "config"})
    kill(home, "prefill-0")
    home.await_status(lambda s: row(s, "prefill-0")["state"] == "failed", "prefill is given up")
    assert any("made no progress for 2 s" in e["message"] for e in home.events() if e["kind"] == "error")
    assert home.ask().status_code == 200
