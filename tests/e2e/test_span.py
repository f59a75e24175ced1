"""A real worker with a rank on each of two hosts: KV handed over to both, its parts restarted as one.

The tests of the module use one deployment, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import short_directory
from tests.e2e.hosts import reason_to_skip
from tests.e2e.site import Site, site
from tests.integration.command import T

REASON = reason_to_skip()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
]
PARTS = ("decode-0", "decode-0.1")
START_S = 600.0
"""Three engines start, two of which wait for each other at every step."""


@pytest.fixture(scope="module")
def spanning(engine_python: str) -> Iterator[Site]:
    """Prefill and frontend on a; decode with its first rank there and its second on b."""
    roles: T = {"prefill": {"on": ["a"]}, "decode": {"tp": 2, "on": ["a", "b"]}}
    with short_directory() as directory, site(roles, "a", directory, engine_python) as made:
        for command in (made.up("a"), made.up("b")):
            done = command.wait(START_S)
            assert done.code == 0, done.err
        yield made


def rows(status: T) -> dict[str, T]:
    return {row["id"]: row for row in status["processes"]}


def test_kv_reaches_the_ranks_on_both_hosts(spanning: Site, one_node: dict[str, str]) -> None:
    status = spanning.status("b")
    assert {name: (row["node"], row["state"]) for name, row in rows(status).items()} == {
        "prefill-0": ("a", "ready"),
        "decode-0": ("a", "ready"),
        "decode-0.1": ("b", "ready"),
        "frontend": ("a", "ready"),
    }
    (pair,) = status["transport"]["pairs"]
    assert (pair["from"], pair["to"], pair["verdict"]) == ("prefill-0", "decode-0", "tcp"), "the slower way counts"
    device = spanning.machines["b"].device
    assert any(f"tcp/{device}" in item["line"] for item in pair["evidence"])
    assert status["verify"]["state"] == "passed"
    for prompt, text in one_node.items():
        assert spanning.ask(prompt, stream=True).text == text


def test_a_rank_that_is_killed_takes_the_worker_down_and_comes_back_with_it(
    spanning: Site, one_node: dict[str, str]
) -> None:
    before = rows(spanning.status("a"))
    for process in spanning.machines["b"].processes():
        if any(word.endswith("vllm_headless.py") for word in process.cmdline()):
            process.kill()

    def renewed(status: T) -> bool:
        now = rows(status)
        return status["state"] == "ready" and all(
            now[name]["restarts"] == 1 and now[name]["pid"] not in (None, before[name]["pid"]) for name in PARTS
        )

    spanning.await_status("a", renewed, "both parts are others, and ready")
    assert "its part decode-0.1 on node b ended" in [event["message"] for event in spanning.events("a")]
    prompt, text = next(iter(one_node.items()))
    assert spanning.ask(prompt).text == text
    assert spanning.dynctl("b", "down", spanning.name, "--all").code == 0
    spanning.nothing_left()
