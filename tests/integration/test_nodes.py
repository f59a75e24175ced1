"""Several supervisors of one run: they find each other, prove pairs between them, lose each other and heal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.nodes_harness import nodes
from tests.integration.run_harness import Home, T

MakeHome = Callable[[], Home]
TWO = {"prefill-0": "a", "decode-0": "b"}


def row(rows: list[T], name: str, key: str = "id") -> T:
    found: T = next(r for r in rows if r[key] == name)
    return found


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_two_nodes_start_in_either_order(make_home: MakeHome, order: tuple[str, str]) -> None:
    with nodes(make_home, TWO) as two:
        first = two.up(order[0])
        first.says(f"node {order[1]} is missing")
        two.ready(order[1])
        first.says("is ready")
        for node in "ab":
            status = two.await_status(node, lambda s: s["state"] == "ready", "ready")
            assert [(n["name"], n["state"], n["here"]) for n in status["nodes"]] == [
                ("a", "ready", node == "a"),
                ("b", "ready", node == "b"),
            ]
            assert {p["id"]: (p["node"], p["state"]) for p in status["processes"]} == {
                "prefill-0": ("a", "ready"),
                "decode-0": ("b", "ready"),
                "frontend": ("a", "ready"),
            }
            (pair,) = status["transport"]["pairs"]
            assert (pair["from"], pair["to"], pair["bytes"] > 0) == ("prefill-0", "decode-0", True)
        assert two.first.ask().status_code == 200
