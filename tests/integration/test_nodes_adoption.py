"""A node whose supervisor was killed is adopted: its workers serve on, and the other nodes take it in again."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable

import psutil
import pytest

from tests.integration.nodes_harness import Nodes, nodes
from tests.integration.run_harness import Home, has_ended, until
from tests.integration.test_nodes_lost import TWO, healed, node_state
from tests.integration.test_operations import steady
from tests.integration.test_spans import PARTS, SPANNING, pids, rows, whole

MakeHome = Callable[[], Home]


def lose(run: Nodes, node: str) -> None:
    supervisor = psutil.Process(run.supervisor(node))
    supervisor.kill()
    until(lambda: has_ended(supervisor), "the supervisor is gone")


def adopt(run: Nodes, node: str, *flags: str) -> None:
    done = run.homes[node].run("up", "-d", run.first.name, "--node", node, *flags)
    assert done.code == 0, f"{done.err}\n{run.logs()}"
    assert "adopting" in done.err


def all_pids(run: Nodes) -> dict[str, int]:
    return {name: row["pid"] for node in run.homes for name, row in rows(run.status(node)).items()}


def proofs(home: Home) -> int:
    return sum(event["kind"] == "pair" for event in home.events())


def test_a_members_part_is_adopted_and_its_workers_are_proven_again(make_home: MakeHome) -> None:
    with nodes(make_home, {"decode-0": "a", "prefill-0": "b"}) as two:
        two.ready("a", "b")
        before, proven = all_pids(two), proofs(two.homes["a"])
        with steady(two.homes["a"]) as load:
            lose(two, "b")
            two.await_status("a", lambda s: node_state(s, "b") == "lost", "b is missed")
            adopt(two, "b")
            for node in two.homes:
                two.await_status(node, lambda s: s["state"] == "ready", f"{node} sees all ready")
        assert load.failed() == [], load.failed()[:5]
        assert all_pids(two) == before
        assert proofs(two.homes["a"]) == proven + 1
        os.kill(before["prefill-0"], signal.SIGKILL)
        two.await_status("a", lambda s: s["state"] == "ready" and rows(s)["prefill-0"]["restarts"] == 1, "it is back")
        assert all_pids(two)["decode-0"] == before["decode-0"]
        assert two.homes["b"].run("down", two.first.name, "--all").code == 0
        for home in two.homes.values():
            home.nothing_left()


def test_the_frontends_node_is_adopted_under_a_load_and_proves_nothing_that_still_runs(make_home: MakeHome) -> None:
    with nodes(make_home, {"decode-0": "a", "prefill-0": "b", "decode-1": "c"}) as three:
        three.ready("a", "b", "c")
        before, proven = all_pids(three), proofs(three.first)
        with steady(three.first) as load:
            for _ in range(2):
                lose(three, "a")
                lost = three.await_status("b", lambda s: node_state(s, "a") == "lost", "a is missed")
                assert rows(lost)["prefill-0"]["state"] == "ready"
                adopt(three, "a")
                healed(three)
        assert load.failed() == [], load.failed()[:5]
        assert all_pids(three) == before
        assert proofs(three.first) == proven
        # what died while nobody looked is another start, and is proven
        lose(three, "a")
        os.kill(before["prefill-0"], signal.SIGKILL)
        three.await_status("b", lambda s: rows(s)["prefill-0"]["restarts"] == 1, "b starts it again by itself")
        adopt(three, "a")
        healed(three)
        assert proofs(three.first) > proven
        assert three.homes["b"].run("restart", three.first.name, "decode-1").code == 0
        healed(three)


def test_both_supervisors_lost_and_adopted_in_either_order(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.ready("a", "b")
        before = all_pids(two)
        lose(two, "a")
        lose(two, "b")
        assert two.first.ask().status_code == 200
        adopt(two, "b")
        assert two.status("b")["state"] == "degraded"
        adopt(two, "a")
        healed(two)
        assert all_pids(two) == before


def test_another_node_is_refused_and_a_port_that_is_taken_ends_nothing(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.ready("a", "b")
        before = all_pids(two)
        plan = json.loads((two.homes["b"].run_dir / "plan.json").read_text())
        own = next(node for node in plan["nodes"] if node["name"] == "b")
        lose(two, "b")
        refused = two.homes["b"].run("up", "-d", two.first.name, "--node", "a")
        assert refused.code == 2
        assert "is not of node a here" in refused.error()["error"][0]
        with socket.create_server((own["address"], own["control_port"])):
            adopt(two, "b")
            warned = [e["message"] for e in two.homes["b"].events() if e["kind"] == "warning"]
            assert any("can't listen for the other nodes" in message for message in warned), warned
        healed(two)
        assert all_pids(two) == before


@pytest.mark.parametrize("node", ["b", "c"], ids=["leader", "part"])
def test_a_worker_on_several_nodes_outlives_the_supervisor_of_either(make_home: MakeHome, node: str) -> None:
    changes = {**SPANNING, "health": {"canary": "2s", "stall": "60s"}}
    with nodes(make_home, {"prefill-0": "a", "decode-0": "b"}, changes, also=("c",)) as three:
        three.ready("a", "b", "c")
        before = three.await_status("a", whole, "all are ready")
        lose(three, node)
        three.await_status("a", lambda s: node_state(s, node) == "lost", "it is missed")
        adopt(three, node)
        after = three.await_status("a", whole, "it is taken in again")
        assert pids(after) == pids(before)
        healed(three)
        # it still is one worker: what ends one part ends all
        os.kill(rows(after)["decode-0.1"]["pid"], signal.SIGKILL)
        again = three.await_status("a", lambda s: whole(s) and not pids(s) & pids(before), "it is back as a whole")
        assert [rows(again)[name]["restarts"] for name in PARTS] == [1, 1]
        # and one whose part died unseen is started again as a whole
        lose(three, node)
        os.kill(rows(again)["decode-0.1"]["pid"], signal.SIGKILL)
        assert three.up(node, "-d").wait().code == 0  # on c nothing is left to be adopted
        last = three.await_status("a", lambda s: whole(s) and not pids(s) & pids(again), "both are other processes")
        assert rows(last)["decode-0"]["restarts"] == 2
        assert three.first.ask().status_code == 200
