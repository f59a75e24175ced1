"""Nodes of a run that are lost in every way: dead, frozen, failing; what the others say and do, and how it heals."""

from __future__ import annotations

import signal
from collections.abc import Callable

import psutil

from tests.integration.nodes_harness import Nodes, nodes
from tests.integration.run_harness import Home, T

MakeHome = Callable[[], Home]
TWO = {"prefill-0": "a", "decode-0": "b"}
THREE = {"prefill-0": "a", "decode-0": "b", "decode-1": "c"}


def row(rows: list[T], name: str, key: str = "id") -> T:
    found: T = next(r for r in rows if r[key] == name)
    return found


def node_state(status: T, node: str) -> str:
    found: str = row(status["nodes"], node, "name")["state"]
    return found


def kill(home: Home) -> None:
    """The node is gone at once, its supervisor and its workers."""
    for process in home.processes():
        process.kill()


def healed(run: Nodes) -> None:
    for node in run.homes:
        run.await_status(node, lambda s: s["state"] == "ready", f"{node} sees all ready")
    assert run.first.ask().status_code == 200


def test_members_serve_on_while_the_frontends_node_is_lost_and_heal(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.ready("a", "b")
        before = row(two.status("b")["processes"], "decode-0")
        kill(two.homes["a"])
        lost = two.await_status("b", lambda s: s["state"] == "degraded", "a is missed")
        assert node_state(lost, "a") == "lost"
        assert row(lost["nodes"], "a", "name")["age_s"] >= 5
        assert "node a is not heard" in lost["reason"]
        text = two.homes["b"].run("status", two.first.name).out
        assert "127.0.0.2" in text
        assert "last said: ready" in " ".join(text.split())
        assert two.up("a", "-d").wait().code == 0
        healed(two)
        after = row(two.status("b")["processes"], "decode-0")
        assert (after["pid"], after["restarts"]) == (before["pid"], 0)


def test_a_frozen_supervisor_is_lost_without_a_closed_connection_and_heals(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.ready("a", "b")
        frozen = psutil.Process(two.supervisor("b"))
        frozen.suspend()
        lost = two.await_status("a", lambda s: s["state"] == "degraded", "b is missed")
        assert node_state(lost, "b") == "lost"
        assert row(lost["processes"], "decode-0")["state"] == "unhealthy"
        frozen.resume()
        healed(two)
        assert row(two.status("b")["processes"], "decode-0")["restarts"] == 0
        frozen.kill()
        alone = two.await_status("b", lambda s: s["state"] == "unsupervised", "its supervisor is gone")
        assert [p["id"] for p in alone["processes"]] == ["decode-0"]
        assert (node_state(alone, "a"), node_state(alone, "b")) == ("missing", "unsupervised")


def test_of_three_nodes_two_serve_on(make_home: MakeHome) -> None:
    with nodes(make_home, THREE) as three:
        three.ready("c", "a", "b")
        kill(three.homes["b"])
        for node in ("a", "c"):
            lost = three.await_status(node, lambda s: s["state"] == "degraded", "b is missed")
            assert {n["name"]: n["state"] == "lost" for n in lost["nodes"]} == {"a": False, "b": True, "c": False}
        assert three.first.ask().status_code == 200
        assert three.homes["c"].requests("decode")
        assert three.up("b", "-d").wait().code == 0
        healed(three)


def test_a_node_that_fails_before_it_met_another_still_tells_it_why(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        second = two.up("b")
        second.says("node a is missing")
        late = psutil.Process(two.supervisor("b"))
        late.suspend()
        two.homes["a"].control(prefill={"die_at_phase": "weights"})
        first = two.up("a")
        first.says("is failed")
        late.resume()
        told = second.wait()
        assert first.wait().code == told.code == 1
        assert "node a failed: prefill-0 died" in told.err
        for home in two.homes.values():
            home.nothing_left()


def test_a_node_lost_while_loading_ends_the_others_and_is_named(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        first, _ = two.loading()
        kill(two.homes["b"])
        ended = first.wait()
        assert ended.code == 1
        assert "node b is gone: not heard for" in ended.err
        two.homes["a"].nothing_left()


def test_an_end_that_was_asked_for_before_all_was_ready_ends_the_others(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        first, second = two.loading()
        first.signal(signal.SIGINT)
        assert first.wait().code == 130
        told = second.wait()
        assert told.code == 1
        assert "node a was ended before the deployment was ready" in told.err
        for home in two.homes.values():
            home.nothing_left()


def test_a_worker_that_fails_its_proof_again_is_started_again_by_its_own_node(make_home: MakeHome) -> None:
    with nodes(make_home, TWO, {"roles": {"decode": {"restart": {"backoff": "100ms"}}}}) as two:
        two.ready("a", "b")
        two.homes["b"].control(decode={"no_transfer": True})
        psutil.Process(row(two.status("b")["processes"], "decode-0")["pid"]).kill()
        two.await_status("b", lambda s: row(s["processes"], "decode-0")["restarts"] >= 2, "started again")
        assert two.status("a")["state"] == "degraded"
        two.homes["b"].control()
        healed(two)
        said = [e for e in two.homes["b"].events() if e.get("process") == "decode-0" and "node a" in e["message"]]
        assert any("could not be proven" in e["message"] for e in said), said


def test_down_all_waits_for_the_frontends_drain(make_home: MakeHome) -> None:
    with nodes(make_home, TWO, {"health": {"canary": "60s", "stall": "120s"}}) as two:  # else a long prompt is a stall
        two.ready("a", "b")
        two.homes["a"].control(prefill={"prefill_delay_ms": 10000})
        two.homes["b"].control(decode={"token_delay_ms": 100})
        lines = two.first.stream(max_tokens=150)
        next(lines)
        slow = two.first.python("-c", ASK, two.first.url)
        two.await_status("a", lambda s: s["frontend"]["in_flight"] == 2, "both requests are in flight")
        asked = two.homes["b"].start("down", two.first.name, "--all", "--timeout", "60")
        assert list(lines)[-1] == "[DONE]"
        assert slow.wait().out.strip() == "200"
        done = asked.wait()
        assert done.code == 0, done.err
        assert "node a has ended, nothing of it is left" in done.err
        for home in two.homes.values():
            home.nothing_left()


ASK = """
import sys, httpx
body = {"model": "fake", "prompt": "a word or two", "max_tokens": 4}
print(httpx.post(sys.argv[1] + "/v1/completions", json=body, timeout=60, trust_env=False).status_code)
"""


def test_down_all_names_a_node_that_does_not_answer(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.ready("a", "b")
        frozen = psutil.Process(two.supervisor("b"))
        frozen.send_signal(signal.SIGSTOP)
        done = two.first.run("down", two.first.name, "--all")
        assert done.code == 1
        error = done.error()
        assert "this node's part" in error["error"][0]
        assert "node b" in error["why"][0]
        two.first.nothing_left()
        frozen.send_signal(signal.SIGCONT)
        degraded = two.await_status("b", lambda s: s["state"] == "degraded", "b goes on alone")
        assert node_state(degraded, "a") in ("stopping", "stopped", "lost")
