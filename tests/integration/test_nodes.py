"""Several supervisors of one run: they find each other, prove pairs between them, lose each other and heal."""

from __future__ import annotations

import socket
from collections.abc import Callable

import psutil
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


def test_a_lost_node_degrades_the_run_and_its_return_heals_it(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.ready("a", "b")
        for process in two.homes["b"].processes():
            process.kill()
        lost = two.await_status("a", lambda s: s["state"] == "degraded", "b is missed")
        assert row(lost["nodes"], "b", "name")["state"] == "lost"
        assert two.first.ask().status_code == 503
        assert two.up("b", "-d").wait().code == 0
        two.await_status("a", lambda s: s["state"] == "ready", "b is back")
        assert two.first.ask().status_code == 200


def test_a_node_that_fails_to_start_ends_the_others_and_is_named(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        first, second = two.loading()
        psutil.Process(row(two.status("b")["processes"], "decode-0")["pid"]).kill()
        ended = second.wait()
        assert ended.code == 1
        there = first.wait()
        assert there.code == 1
        assert "node b failed: decode-0 died" in there.err
        for home in two.homes.values():
            home.nothing_left()


def test_nodes_with_different_files_refuse_each_other_in_words(make_home: MakeHome) -> None:
    with nodes(make_home, TWO, {"slo": {"ttft": "1s"}}) as two:
        other = two.homes["b"].dir / "work" / "other.yaml"
        other.write_text(two.file.read_text().replace("1s", "2s"))
        first, second = two.up("a"), two.up("b", file=other)
        for command, peer in ((first, "b"), (second, "a")):
            ended = command.wait()
            assert ended.code == 2, ended.err
            assert f"node {peer}" in ended.err
        assert any("file: " in command.err for command in (first, second))


def test_another_secret_is_refused(make_home: MakeHome) -> None:
    with nodes(make_home, TWO, {"ready": {"timeout": "60s"}}) as two:
        first = two.up("a")
        first.says("node b is missing")
        ended = two.up("b", secret="quite another secret than the first").wait()
        assert ended.code == 2
        assert "node a has another secret" in ended.err
        assert first.process.poll() is None


def test_down_all_ends_every_node(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.ready("a", "b")
        done = two.homes["b"].run("down", two.first.name, "--all")
        assert done.code == 0, done.err
        assert "node a has ended, nothing of it is left" in done.err
        for home in two.homes.values():
            home.nothing_left()


def test_a_stranger_at_the_control_port_changes_nothing(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        plan = two.homes["a"].run("plan", two.file, "--node", "a", "--json").json()
        first = two.up("a")
        first.says("node b is missing")
        node = row(plan["nodes"], "a", "name")
        with socket.create_connection((node["address"], node["control_port"]), 10) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert b"HTTP" not in caller.recv(4096)
        two.ready("b")
        first.says("is ready")
