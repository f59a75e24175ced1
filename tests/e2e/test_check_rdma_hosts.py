"""`dynctl check-rdma` between two hosts made of namespaces: what UCX uses between them, and what when they part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynctl.hardware.discover import discover
from tests.e2e.hosts import Host, reason_to_skip, two_hosts
from tests.integration.command import Command, Result

REASON = reason_to_skip()
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(REASON is not None, reason=REASON or "")]
TOKEN = "a-token-that-both-ends-of-a-test-know"
WITHIN_S = 60.0


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two nodes: a network and a pid namespace each."""
    with two_hosts(own_pids=True) as both:
        yield both


@pytest.fixture
def env(engine_python: str, directory: Path) -> dict[str, str]:
    """The same for both ends, the token included."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UCX_", "DYNCTL_"))}
    own = {"DYNCTL_ENGINE_PYTHON": engine_python, "DYNCTL_TOKEN": TOKEN, "XDG_STATE_HOME": str(directory)}
    return {**kept, **own, "NO_COLOR": "1"}


def meet(hosts: tuple[Host, Host], env: dict[str, str], cwd: Path, *arguments: str) -> tuple[Command, Command]:
    a, b = hosts
    listener = a.dynctl("check-rdma", "--listen", a.address, *arguments, env=env, cwd=cwd)
    listener.says("listening on")
    return listener, b.dynctl("check-rdma", "--peer", a.address, *arguments, env=env, cwd=cwd)


def documents(*commands: Command) -> tuple[list[Result], list[dict[str, Any]]]:
    results = [command.wait(WITHIN_S) for command in commands]
    assert all("Traceback" not in result.err for result in results)
    return results, [json.loads(result.out) for result in results]


def test_two_nodes_use_tcp_over_their_own_interfaces(
    hosts: tuple[Host, Host], env: dict[str, str], directory: Path
) -> None:
    results, found = documents(*meet(hosts, env, directory, "--json", "--both", "--size", "4M"))
    assert [result.code for result in results] == [0, 0], results
    a, b = hosts
    for report in found:
        assert (report["ok"], report["verdict"]) == (True, "tcp")
        ways = {(pair["from"], pair["to"], pair["direction"]) for pair in report["pairs"]}
        assert ways == {
            (x, y, d) for x, y in ((a.address, b.address), (b.address, a.address)) for d in ("read", "write")
        }
        lines = " ".join(line["line"] for pair in report["pairs"] for line in pair["evidence"])
        assert f"tcp/{a.device}" in lines
        assert f"tcp/{b.device}" in lines
        assert "tcp/lo" not in lines
    assert found[0]["pairs"] == found[1]["pairs"]
    assert found[0]["checks"] == found[1]["checks"]
    assert (found[0]["peer"], found[1]["peer"]) == (b.address, a.address)
    assert [host.processes() for host in hosts] == [[], []]


@pytest.mark.skipif(not discover().cma.allowed, reason="this host forbids CMA")
def test_networks_alone_do_not_make_two_nodes(env: dict[str, str], directory: Path) -> None:
    with two_hosts(own_pids=False) as hosts:
        results, found = documents(*meet(hosts, env, directory, "--json", "--size", "4M"))
        assert [result.code for result in results] == [0, 0]
        assert [report["verdict"] for report in found] == ["shm", "shm"]


def test_what_one_end_requires_holds_for_both(hosts: tuple[Host, Host], env: dict[str, str], directory: Path) -> None:
    a, b = hosts
    listener = a.dynctl("check-rdma", "--listen", a.address, "--size", "1M", env=env, cwd=directory)
    listener.says("listening on")
    peer = b.dynctl("check-rdma", "--peer", a.address, "--require", "rdma", env=env, cwd=directory)
    for result in (peer.wait(WITHIN_S), listener.wait(WITHIN_S)):
        assert result.code == 4
        assert result.out.startswith("not ok: tcp (")
        assert "required: rdma" in result.out.splitlines()[0]


def test_a_link_that_goes_down_is_an_error_on_both_ends(
    hosts: tuple[Host, Host], env: dict[str, str], directory: Path
) -> None:
    listener, peer = meet(hosts, env, directory, "--both", "--size", "1G")
    peer.says("READ ")
    hosts[0].link("down")
    for command in (peer, listener):
        result = command.wait(20.0)
        assert result.code == 4
        assert result.error()["error"]
        assert result.error()["fix"]
    assert [host.processes() for host in hosts] == [[], []]


def test_the_wrong_token_ends_both(hosts: tuple[Host, Host], env: dict[str, str], directory: Path) -> None:
    a, b = hosts
    listener = a.dynctl("check-rdma", "--listen", a.address, env=env, cwd=directory)
    listener.says("listening on")
    wrong = directory / "token"
    wrong.write_text(TOKEN[::-1])
    peer = b.dynctl("check-rdma", "--peer", a.address, "--token-file", str(wrong), env=env, cwd=directory)
    assert peer.wait(WITHIN_S).code == 2
    assert listener.wait(WITHIN_S).code == 4


FILE = """schema: 1
name: pair
model: builtin:tiny
secret_file: ./secret
nodes: {{a: {{address: {a}, ports: 21000-21099}}, b: {{address: {b}, ports: 21000-21099}}}}
roles: {{prefill: {{on: [a]}}, decode: {{on: [b]}}}}
"""


@pytest.fixture
def file(hosts: tuple[Host, Host], directory: Path) -> Path:
    """One topology for both."""
    for name in ("secret", "other"):
        (directory / name).touch(mode=0o600)
        (directory / name).write_text(f"a secret of the tests, {name}")
    path = directory / "pair.yaml"
    path.write_text(FILE.format(a=hosts[0].address, b=hosts[1].address))
    return path


def test_nodes_of_one_file_need_no_flags(
    hosts: tuple[Host, Host], env: dict[str, str], directory: Path, file: Path
) -> None:
    later = hosts[1].dynctl("check-rdma", str(file), "--json", "--size", "4M", env=env, cwd=directory)
    later.says("dialling node a")
    earlier = hosts[0].dynctl("check-rdma", str(file), "--json", "--size", "4M", "--node", "a", env=env, cwd=directory)
    results, found = documents(earlier, later)
    assert [result.code for result in results] == [0, 0], results
    assert [(report["hostname"], report["peer"], report["verdict"]) for report in found] == [
        ("a", "b", "tcp"),
        ("b", "a", "tcp"),
    ]
    assert {(pair["from"], pair["to"]) for pair in found[0]["pairs"]} == {("a", "b"), ("b", "a")}
    assert found[0]["pairs"] == found[1]["pairs"]
    assert [host.processes() for host in hosts] == [[], []]


@pytest.mark.parametrize(
    ("override", "codes", "cause"),
    [
        ("secret_file=./other", [4, 2], "has another secret"),
        ("roles.decode.tp=2", [2, 2], "has another plan than this node"),
    ],
)
def test_nodes_that_do_not_fit_each_other_are_named(
    hosts: tuple[Host, Host],
    env: dict[str, str],
    directory: Path,
    file: Path,
    override: str,
    codes: list[int],
    cause: str,
) -> None:
    earlier = hosts[0].dynctl("check-rdma", str(file), env=env, cwd=directory)
    later = hosts[1].dynctl("check-rdma", str(file), "--set", override, env=env, cwd=directory)
    results = [command.wait(WITHIN_S) for command in (earlier, later)]
    assert [result.code for result in results] == codes
    for other, result in zip("ba", results, strict=True):
        assert result.error()["error"] == [f"node {other} {cause}" + result.error()["error"][0].partition(cause)[2]]


def test_a_node_that_is_not_there_is_named_in_time(
    hosts: tuple[Host, Host], env: dict[str, str], directory: Path, file: Path
) -> None:
    for host, cause in zip(hosts, ("node b did not come", "node a does not answer"), strict=True):
        result = host.dynctl("check-rdma", str(file), "--wait", "1s", env=env, cwd=directory).wait(WITHIN_S)
        assert result.code == 4
        assert result.error()["error"][0].startswith(cause)
