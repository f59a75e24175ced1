"""Real engines on hosts of their own: prefill on one, decode and frontend on another, KV over the wire between them.

The tests of a module use one deployment, in their order: the last one ends it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import short_directory
from tests.e2e.hosts import reason_to_skip
from tests.e2e.site import PROMPTS, START_S, Site, site
from tests.integration.command import T, until

REASON = reason_to_skip()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]
CUT_S = 20.0


@pytest.fixture(scope="module")
def two(one_node: dict[str, str], engine_python: str) -> Iterator[Site]:
    """Prefill on a, decode and frontend on b: a was started first and waited for b."""
    roles: T = {"prefill": {"on": ["a"]}, "decode": {"on": ["b"]}}
    with short_directory() as directory, site(roles, "b", directory, engine_python) as made:
        first = made.up("a")
        first.says("node b is missing: it has not called yet")
        second = made.up("b")
        for command in (second, first):
            done = command.wait(START_S)
            assert done.code == 0, done.err
            assert "site is ready" in done.err
        yield made


def test_a_pair_across_nodes_is_proven_and_its_device_named(two: Site) -> None:
    for node in two.machines:
        status = two.status(node)
        assert status["state"] == "ready"
        assert [(n["name"], n["state"], n["here"]) for n in status["nodes"]] == [
            (name, "ready", name == node) for name in two.machines
        ]
        assert all(n["age_s"] < 5 for n in status["nodes"])
        assert {p["id"]: p["node"] for p in status["processes"]} == {"prefill-0": "a", "decode-0": "b", "frontend": "b"}
        (pair,) = status["transport"]["pairs"]
        assert (pair["from"], pair["to"], pair["verdict"]) == ("prefill-0", "decode-0", "tcp")
        assert pair["bytes"] > 0
        device = two.machines["b"].device
        assert any(f"tcp/{device}" in item["line"] for item in pair["evidence"])
        assert status["verify"]["state"] == "passed"
        text = two.dynctl(node, "status", two.name).out
        assert f"tcp ({device})" in text


def test_tokens_are_those_of_one_node_and_kv_moves(two: Site, one_node: dict[str, str]) -> None:
    for prompt in PROMPTS:
        answer = two.ask(prompt, stream=True)
        assert (answer.status, answer.text) == (200, one_node[prompt])

    ttft = two.await_status("a", lambda s: s["ttft_ms"]["window"]["transfer"], "the split is shown")["ttft_ms"]
    assert 0 < ttft["p50"] <= ttft["p99"]
    assert all(ttft["split"][part] is not None for part in ("queue", "prefill", "handover"))
    assert ttft["window"]["gigabytes_per_s"] > 0


def test_engines_answer_nobody_without_the_key(two: Site) -> None:
    ports = {p["id"]: p["ports"]["http"] for p in two.status("b")["processes"]}
    urls = [
        f"http://{two.machines[node].address}:{ports[f'{role}-0']}"
        for role, node in (("prefill", "a"), ("decode", "b"))
    ]
    body = {"model": "tiny", "prompt": "x", "max_tokens": 1}

    def codes(url: str) -> set[int]:
        paths = ("/v1/completions", "/invocations", "/tokenize")
        return {httpx.post(url + path, json=body, trust_env=False).status_code for path in paths}

    with two.clients() as threads:
        assert [threads.submit(codes, url).result() for url in urls] == [{401}, {401}]


def test_a_cut_link_degrades_and_heals_and_no_answer_is_wrong(two: Site, one_node: dict[str, str]) -> None:
    """For 20 s the switch drops whatever comes from a or goes there, in the middle of a load, and says nothing."""
    healed = threading.Event()
    with two.clients(4) as threads:
        load = two.load(threads, PROMPTS, 4, lambda: not healed.is_set())
        try:
            two.await_status("b", lambda s: s["frontend"]["in_flight"] > 0, "load")
            two.machines["a"].unplug(silent=True)
            cut_at = time.monotonic()
            lost = two.await_status("b", lambda s: s["state"] == "degraded", "a is missed")
            assert "node a is not heard for" in lost["reason"]
            assert "no prefill worker is left, decode serves alone" in lost["reason"]
            assert row(lost["nodes"], "a")["state"] == "lost"
            assert row(lost["nodes"], "a")["age_s"] >= 5
            there = two.await_status("a", lambda s: s["state"] == "degraded", "b is missed")
            assert row(there["nodes"], "b")["state"] == "lost"
            until(lambda: time.monotonic() >= cut_at + CUT_S, "the cut lasts")
            two.machines["a"].plug()
            joined_at = time.monotonic()
            for node in "ab":
                two.await_status(node, lambda s: s["state"] == "ready", "healed without a hand")
        finally:
            healed.set()
        answers = [answer for client in load for answer in client.result()]
    assert {(a.status, a.text if a.status != 200 else "") for a in answers} == {(200, "")}
    assert all(a.text == one_node[a.prompt] for a in answers)
    # a request that the cut caught was served while it lasted, not when TCP had recovered
    assert any(cut_at < a.sent_at < joined_at and a.sent_at + a.took_s < joined_at for a in answers)
    assert sum(p["restarts"] for p in two.status("b")["processes"]) == 0


def test_a_dead_node_degrades_and_its_return_heals(two: Site, one_node: dict[str, str]) -> None:
    """a loses its power: no process of it is left, and none said a word."""
    two.machines["a"].unplug(silent=True)
    two.machines["a"].halt()
    lost = two.await_status("b", lambda s: s["state"] == "degraded", "a is missed")
    assert "no prefill worker is left, decode serves alone" in lost["reason"]
    assert row(lost["processes"], "prefill-0")["state"] == "unhealthy"
    text = two.dynctl("b", "status", two.name).out
    assert "node a is not heard for" in text
    assert two.ask(PROMPTS[0]).text == one_node[PROMPTS[0]]
    two.machines["a"].boot()
    two.machines["a"].plug()
    again = two.up("a").wait(START_S)
    assert again.code == 0, again.err
    for node in "ab":
        status = two.await_status(node, lambda s: s["state"] == "ready", "whole again")
        assert row(status["nodes"], "a")["state"] == "ready"
    answer = two.ask(PROMPTS[1], stream=True)
    assert (answer.status, answer.text) == (200, one_node[PROMPTS[1]])


def test_down_all_ends_every_node(two: Site) -> None:
    done = two.dynctl("a", "down", two.name, "--all")
    assert done.code == 0, done.err
    assert "node b has ended, nothing of it is left" in done.err
    two.nothing_left()
    assert two.dynctl("b", "status", two.name).code == 5


def test_three_nodes_started_by_the_frontends_first(one_node: dict[str, str], engine_python: str) -> None:
    """One prefill and two decode workers, a host each; one leaves by itself, the others are asked to."""
    roles: T = {"prefill": {"on": ["a"]}, "decode": {"workers": 2, "on": ["b", "c"]}}
    with short_directory() as directory, site(roles, "c", directory, engine_python) as three:
        first = three.up("c")
        for node in "ab":
            first.says(f"node {node} is missing: nothing listens")
        for command in [*(three.up(node) for node in "ba"), first]:
            done = command.wait(START_S)
            assert done.code == 0, done.err
        status = three.status("a")
        assert {(p["from"], p["to"], p["verdict"]) for p in status["transport"]["pairs"]} == {
            ("prefill-0", "decode-0", "tcp"),
            ("prefill-0", "decode-1", "tcp"),
        }
        for prompt in PROMPTS[:4]:
            assert three.ask(prompt).text == one_node[prompt]
        served = [event["data"]["to"] for event in three.events("c") if event["kind"] == "pair"]
        assert sorted(served) == ["decode-0", "decode-1"]
        assert three.dynctl("b", "down", three.name).code == 0
        left = three.await_status("c", lambda s: s["state"] == "degraded", "b is missed")
        assert "node b has left" in left["reason"]
        assert three.ask(PROMPTS[4]).text == one_node[PROMPTS[4]]
        done = three.dynctl("a", "down", three.name, "--all")
        assert "node c has ended, nothing of it is left" in done.err
        three.nothing_left()


def row(rows: list[T], name: str) -> T:
    """That node's row, or that process's."""
    found: T = next(r for r in rows if name in (r.get("name"), r.get("id")))
    return found
