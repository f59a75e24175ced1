"""A worker that spans nodes is one worker: it starts, serves, dies and comes back with all its parts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.integration.nodes_harness import Nodes, nodes
from tests.integration.run_harness import Home, T

MakeHome = Callable[[], Home]
PARTS = ("decode-0", "decode-0.1")
SPANNING: T = {
    "roles": {"decode": {"tp": 2, "on": ["b", "c"], "restart": {"backoff": "0.2s"}}},
    "health": {"canary": "2s", "stall": "2s"},
}


@pytest.fixture
def three(make_home: MakeHome) -> Iterator[Nodes]:
    """Prefill and frontend on a; decode on b, which leads, and c."""
    with nodes(make_home, {"prefill-0": "a", "decode-0": "b"}, SPANNING, also=("c",)) as three:
        yield three


def rows(status: T) -> dict[str, T]:
    return {row["id"]: row for row in status["processes"]}


def whole(status: T) -> bool:
    """Whether every part is ready, and so the run."""
    found: bool = status["state"] == "ready" and all(rows(status)[name]["state"] == "ready" for name in PARTS)
    return found


def pids(status: T) -> set[int]:
    return {rows(status)[name]["pid"] for name in PARTS}


def renewed(three: Nodes, before: T, restarts: int, why: str) -> T:
    """The status once both parts are other processes than before, and serve."""
    status = three.await_status(
        "a",
        lambda s: whole(s) and not pids(s) & pids(before) and None not in pids(s),
        f"the worker is back as a whole: {why}",
    )
    assert [rows(status)[name]["restarts"] for name in PARTS] == [restarts, restarts]
    assert three.first.ask().status_code == 200
    return status


def worker_below(pid: int) -> int:
    """The engine's own worker process below a part."""
    return next(p.pid for p in psutil.Process(pid).children(recursive=True) if p.name().startswith("VLLM::Worker"))


def test_all_parts_of_a_worker_share_one_life(three: Nodes) -> None:
    three.ready("c", "a", "b")
    status = three.await_status("a", whole, "all are ready")
    assert [(row["id"], row["node"]) for row in status["processes"]] == [
        ("prefill-0", "a"),
        ("decode-0", "b"),
        ("decode-0.1", "c"),
        ("frontend", "a"),
    ]
    assert three.first.ask().status_code == 200

    os.kill(rows(status)["decode-0.1"]["pid"], signal.SIGKILL)
    status = renewed(three, status, 1, "a part was killed")

    os.kill(rows(status)["decode-0"]["pid"], signal.SIGKILL)
    status = renewed(three, status, 2, "its leader was killed")

    os.kill(worker_below(rows(status)["decode-0.1"]["pid"]), signal.SIGSTOP)
    status = renewed(three, status, 3, "a part was stopped by a signal")
    assert "unhealthy" in three.homes["b"].states("decode-0")

    done = three.homes["c"].run("restart", three.first.name, "decode-0.1")
    assert done.code == 0, done.err
    renewed(three, status, 4, "a part was asked to restart")


def test_the_loss_of_a_parts_node_is_the_workers_until_it_returns(three: Nodes) -> None:
    three.ready("a", "b", "c")
    for process in three.homes["c"].processes():
        process.kill()
    lost = three.await_status("a", lambda s: rows(s)["decode-0"]["state"] != "ready", "the worker is missed")
    assert lost["state"] == "degraded"
    assert three.first.ask().status_code == 503
    three.await_status("b", lambda s: rows(s)["decode-0"]["phase"] == "waits for node c", "its leader waits")
    assert three.up("c", "-d").wait().code == 0
    three.await_status("a", whole, "c is back")
    assert three.first.ask().status_code == 200
