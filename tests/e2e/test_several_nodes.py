"""Real engines on hosts of their own: prefill on one, decode and frontend on another, KV over the wire between them.

The tests of a module use one deployment, in their order: the last one ends it.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import short_directory
from tests.e2e.deployment import deployed
from tests.e2e.hosts import reason_to_skip
from tests.e2e.site import START_S, Site, complete, site
from tests.integration.command import T

REASON = reason_to_skip()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]
PROMPTS = [f"{number} lanterns in the harbour, and what the willow said of them " * 6 for number in range(8)]


@pytest.fixture(scope="module")
def one_node(engine_python: str) -> dict[str, str]:
    """What one worker on one node, without any hand-over, answers to each prompt."""
    with (
        short_directory() as directory,
        deployed("cpu-agg", directory, engine_python) as alone,
    ):
        answers = [complete(prompt, url=alone.url) for prompt in PROMPTS]
    assert [answer.status for answer in answers] == [200] * len(PROMPTS)
    return {answer.prompt: answer.text for answer in answers}


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


def test_down_all_ends_every_node(two: Site) -> None:
    done = two.dynctl("a", "down", two.name, "--all")
    assert done.code == 0, done.err
    assert "node b has ended, nothing of it is left" in done.err
    two.nothing_left()
    assert two.dynctl("b", "status", two.name).code == 5
