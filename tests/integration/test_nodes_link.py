"""Two hosts of network namespaces whose link is cut without a word, both ways, and comes back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e import hosts
from tests.integration.nodes_harness import nodes
from tests.integration.run_harness import Home, T

TWO = {"prefill-0": "a", "decode-0": "b"}
ASK = """
import sys, httpx
body = {"model": "fake", "prompt": "a word or two", "max_tokens": 4}
print(httpx.post(sys.argv[1] + "/v1/completions", json=body, timeout=60, trust_env=False).status_code)
"""


@pytest.fixture(autouse=True)
def _possible() -> None:
    if reason := hosts.reason_to_skip():
        pytest.skip(reason)


def drop(host: hosts.Host, address: str, *, cut: bool) -> None:
    """Whether what the host sends to that address goes to nobody: frames for a MAC that none has."""
    nobody = ["lladdr", "02:00:00:00:00:99", "dev", host.device, "nud", "permanent"]
    what = ["replace", address, *nobody] if cut else ["del", address, "dev", host.device]
    hosts.ip("-n", host.name, "neigh", *what)


def test_a_link_that_drops_everything_for_a_while_heals(make_home: Callable[[], Home]) -> None:
    with hosts.two_hosts(own_pids=False) as pair:
        inside = [("ip", "netns", "exec", host.name) for host in pair]
        hosts.ip("-n", pair[0].name, "address", "add", "10.99.0.3/24", "dev", pair[0].device)
        with nodes(make_home, TWO, addresses="10.99.0.{}", hosts=[inside[1], inside[0]]) as two:
            two.ready("a", "b")
            ways = list(zip(pair, ("10.99.0.2", "10.99.0.3"), strict=True))
            for host, other in ways:
                drop(host, other, cut=True)

            def missed(status: T) -> bool:
                (other,) = (node for node in status["nodes"] if not node["here"])
                return bool(other["state"] == "lost" and other["age_s"] >= 20 and status["state"] == "degraded")

            for node in "ab":
                lost = two.await_status(node, missed, "the other is lost for 20 s")
                (far,) = (n for n in lost["nodes"] if not n["here"])
                assert "not heard for" in far["reason"]
                assert "is the port open in its firewall?" in far["reason"] or node == "a"
                assert far["heard"] in ("ready", "degraded")
            for host, other in ways:
                drop(host, other, cut=False)
            for node in "ab":
                healed = two.await_status(node, lambda s: s["state"] == "ready", "both are whole again")
                assert [p["restarts"] for p in healed["processes"]] == [0, 0, 0]
            assert two.first.python("-c", ASK, two.first.url).wait().out.strip() == "200"
