"""What several nodes are given that is wrong: hosts, names, ports, strangers, silent peers; and their plans."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.integration.nodes_harness import SECRET, nodes
from tests.integration.run_harness import Home, T

MakeHome = Callable[[], Home]
TWO = {"prefill-0": "a", "decode-0": "b"}


def control_port(home: Home, file: Path, node: str) -> tuple[str, int]:
    plan = home.run("plan", file, "--node", node, "--json").json()
    (found,) = (n for n in plan["nodes"] if n["name"] == node)
    return found["address"], found["control_port"]


def elsewhere(home: Home, **hardware: str) -> Path:
    """Two nodes that are both other hosts, by addresses that nobody has."""
    listed: T = {name: {"address": f"198.51.100.{i}"} for i, name in enumerate("ab", 1)}
    for name, path in hardware.items():
        listed[name]["hardware"] = path
    return home.topology({"nodes": listed, "roles": {"prefill": {"on": ["a"]}, "decode": {"on": ["b"]}}})


def test_the_wrong_node_starts_nothing(home: Home) -> None:
    file, secret = elsewhere(home), {"DYNCTL_SECRET": SECRET}
    here = home.topology(
        {
            "nodes": {"a": {"address": "127.0.0.2"}, "b": {"address": "127.0.0.3"}},
            "roles": {"prefill": {"on": ["a"]}, "decode": {"on": ["b"]}},
        },
        file="here.yaml",
    )
    for arguments, code, cause in (
        ((file, "--node", "c"), 2, "there is no node `c`"),
        ((file, "--node", "a"), 3, "this host is not node a: it does not have the address 198.51.100.1"),
        ((file,), 3, "this host is none of the nodes"),
        ((here,), 3, "this host is several of the nodes: a, b"),
    ):
        done = home.run("up", "-d", *arguments, env=secret)
        assert (done.code, cause in done.error()["error"][0]) == (code, True), done.err
        assert done.error()["fix"] or code == 2
    assert home.run("status", home.name).code == 5
    assert not home.processes()


def test_a_plan_from_elsewhere_is_by_snapshots_and_says_so(home: Home) -> None:
    (home.dir / "work" / "snapshot.json").write_text(home.run("hardware", "--json").out)
    missing = home.run("plan", elsewhere(home, a="snapshot.json"), "--node", "b")
    assert missing.code == 3
    assert "nodes.b.hardware" in missing.error()["fix"][0]
    file = elsewhere(home, a="snapshot.json", b="snapshot.json")
    for arguments, node in (((), "a"), (("--node", "b"), "b")):
        done = home.run("plan", file, *arguments)
        assert done.code == 0, done.err
        (whose,) = (line for line in done.out.splitlines() if "(whose plan this is)" in line)
        assert whose.startswith(f"node {node} ")
        assert "this node" not in done.out


def test_a_run_that_goes_on_is_no_obstacle_to_its_own_plan(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.ready("a", "b")
        for node, home in two.homes.items():
            done = home.run("plan", two.file, "--node", node, "--json")
            assert done.code == 0, done.err
            planned = {p["id"]: p["ports"] for p in done.json()["processes"]}
            assert planned == {p["id"]: p["ports"] for p in two.status(node)["processes"]}


def test_a_run_of_one_node_is_no_obstacle_to_its_own_plan(home: Home) -> None:
    home.up()
    done = home.run("plan", home.topology(), "--json")
    assert done.code == 0, done.err
    planned = {p["id"]: p["ports"] for p in done.json()["processes"]}
    assert planned == {p["id"]: p["ports"] for p in home.status()["processes"]}


def test_a_peer_that_is_not_there_drops_or_says_nothing_is_named(make_home: MakeHome) -> None:
    with nodes(make_home, TWO, {"ready": {"timeout": "45s"}}) as two:
        where = control_port(two.first, two.file, "a")
        second = two.up("b")
        second.says(f"node a is missing: nothing listens at {where[0]}:{where[1]}")
        with dropping(where):
            second.says(f"node a is missing: no answer from {where[0]}:{where[1]} within 3 s")
        with socket.create_server(where, reuse_port=False):  # it takes connections, and never says a word
            second.says("node a is missing: what answers for node a is no supervisor of dynctl")
        ended = second.wait()
        assert ended.code == 124
        assert "node a is missing" in ended.error()["error"][0]
        two.homes["b"].nothing_left()


@contextlib.contextmanager
def dropping(where: tuple[str, int]) -> Iterator[None]:
    """A port whose queue is full: the kernel drops what comes, as a firewall would."""
    with contextlib.ExitStack() as held:
        server = held.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(where)
        server.listen(0)
        for _ in range(4):
            filler = held.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(where)
        yield


def test_strangers_that_flood_the_control_port_shut_no_node_out(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        where = control_port(two.first, two.file, "a")
        first = two.up("a")
        first.says("node b is missing")
        over = threading.Event()
        flood = threading.Thread(target=_flood, args=(where, over))
        flood.start()
        try:
            two.ready("b")
            first.says("is ready")
            memory = psutil.Process(two.supervisor("a")).memory_info().rss
            assert memory < 300 << 20
        finally:
            over.set()
            flood.join()
        assert len([e for e in two.first.events() if e["kind"] == "warning"]) <= 20


def _flood(where: tuple[str, int], over: threading.Event) -> None:
    """Hundreds of connections that say nothing, or garbage, taken up again as they are dropped."""
    held: list[socket.socket] = []
    while not over.is_set():
        with contextlib.suppress(OSError):
            caller = socket.create_connection(where, 1)
            held.append(caller)
            if len(held) % 3 == 0:
                caller.setblocking(False)
                caller.send(b"\xff" * (1 << 20))
        if len(held) > 400:
            held.pop(0).close()
        over.wait(0.005)
    for caller in held:
        caller.close()


def test_a_node_lost_while_pairs_are_proven_is_named(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        two.homes["b"].control(decode={"hang_on_request": 1})
        first = two.up("a")
        two.up("b")
        first.says("proving its pairs")
        for process in two.homes["b"].processes():
            process.kill()
        ended = first.wait()
        assert ended.code == 1
        error = ended.error()
        assert "node b" in " ".join([*error["error"], *error["at"]])
        two.first.nothing_left()


def test_a_path_between_nodes_below_its_floor_fails_closed_on_both(make_home: MakeHome) -> None:
    with nodes(make_home, TWO) as two:
        for home in two.homes.values():
            home.hook("up", "from dynctl.hardware.values import Hardware\nHardware.has_rdma = lambda self: True")
            home.control(ucx_class="tcp")
        first, second = two.up("a", "--no-preflight"), two.up("b", "--no-preflight")
        said = [command.wait() for command in (first, second)]
        for done in said:
            assert done.code == 4, done.err
            assert "prefill-0 on node a -> decode-0 on node b" in done.error()["error"][0]
            assert "rdma is required" in done.error()["error"][0]
        assert "node a failed" in said[1].error()["error"][0]
        for home in two.homes.values():
            home.nothing_left()
