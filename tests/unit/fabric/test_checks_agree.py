"""Rows that need both nodes, and the GID that UCX takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dynctl.fabric.checks import observe as module
from dynctl.fabric.checks.agree import agree
from dynctl.fabric.checks.gids import kind, selected
from dynctl.fabric.checks.observe import observe, with_routes
from dynctl.fabric.checks.values import Need, Observed, Port, Reading, Route, WorkerNeed
from dynctl.fabric.report import Check
from dynctl.hardware.values import Gid
from tests.unit.fabric.trees import Tree, flat, need, write


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Tree, Tree]:
    return Tree(tmp_path / "a", nics=2), Tree(tmp_path / "b", nics=2)


def red(rows: tuple[Check, ...]) -> list[tuple[str, str]]:
    return [(row.id, row.status) for row in rows if row.status in ("warn", "fail")]


def test_two_like_nodes_agree(trees: tuple[Tree, Tree]) -> None:
    rows = agree(observe(trees[0].root), observe(trees[1].root), need(2))
    assert [(row.id, row.status) for row in rows] == [
        *(("gidsel", "pass"), ("mtu", "pass"), ("qos", "pass"), ("route", "skip")),
    ]


def test_an_mtu_that_differs(trees: tuple[Tree, Tree]) -> None:
    write(trees[1].net() / "mtu", 4500)
    rows = agree(observe(trees[0].root), observe(trees[1].root), need(2))
    assert red(rows) == [("mtu", "fail")]
    assert "mlx5_0:1: 9000 here, 4500 there" in [row.observed for row in rows]
    assert red(agree(observe(trees[0].root), observe(trees[1].root), Need())) == [("mtu", "warn")]


def test_kinds_of_gid_that_differ(trees: tuple[Tree, Tree]) -> None:
    trees[1].gids(0, "fe80::a288:c2ff:feab:1")
    assert red(agree(observe(trees[0].root), observe(trees[1].root), need(2))) == [("gidsel", "fail")]


def test_quality_of_service_that_differs(trees: tuple[Tree, Tree]) -> None:
    write(trees[1].net() / "qos/pfc", "0 0 0 0 0 0 0 0")
    assert red(agree(observe(trees[0].root), observe(trees[1].root), need(2))) == [("qos", "fail")]


def test_a_peer_whose_devices_have_other_names(trees: tuple[Tree, Tree]) -> None:
    theirs = observe(trees[1].root)
    renamed = tuple(msgspec.structs.replace(d, name=d.name.replace("mlx5", "rocep")) for d in theirs.devices)
    rows = agree(observe(trees[0].root), msgspec.structs.replace(theirs, devices=renamed), Need())
    assert red(rows) == []
    write(trees[0].net() / "mtu", 1500)
    assert red(agree(observe(trees[0].root), msgspec.structs.replace(theirs, devices=renamed), Need())) == [
        ("mtu", "warn")
    ]


def test_a_peer_without_rdma(trees: tuple[Tree, Tree], tmp_path: Path) -> None:
    flat(tmp_path / "c")
    rows = agree(observe(trees[0].root), observe(tmp_path / "c"), need(2))
    assert {row.status for row in rows} == {"skip"}


# Routes


def routed(reading: Reading) -> Observed:
    route = Route(nic="mlx5_0", source="10.0.0.1", destination="10.0.0.2", netdev="eth0", taken=reading)
    return Observed(hostname="a", routes=(route,))


@pytest.mark.parametrize(
    ("reading", "status"),
    [
        (Reading("eth0"), "pass"),
        (Reading("eth1"), "warn"),
        (Reading(None, "RTNETLINK answers: Network is unreachable"), "fail"),
        (Reading(None, "FileNotFoundError: ip"), "skip"),
    ],
)
def test_routes(reading: Reading, status: str) -> None:
    (row,) = [row for row in agree(routed(reading), Observed(), need()) if row.id == "route"]
    assert (row.status, row.target) == (status, "mlx5_0 to 10.0.0.2")


@pytest.mark.parametrize(
    ("code", "out", "expected"),
    [
        (0, json.dumps([{"dst": "10.0.1.1", "from": "10.0.0.1", "dev": "eth0"}]), Reading("eth0")),
        (2, "", Reading(None, "RTNETLINK answers: Network is unreachable")),
        (0, "[]", Reading(None, "ip printed no route")),
        (0, "{", Reading(None, "ip printed no route")),
    ],
)
def test_the_kernel_is_asked_for_each_rank(
    trees: tuple[Tree, Tree], monkeypatch: pytest.MonkeyPatch, code: int, out: str, expected: Reading
) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(argv)
        return subprocess.CompletedProcess(argv, code, out.encode(), b"RTNETLINK answers: Network is unreachable\n")

    monkeypatch.setattr(module.subprocess, "run", run)
    found = with_routes(observe(trees[0].root), observe(trees[1].root), need(2))
    assert asked == [
        ["ip", "-j", "route", "get", "10.0.0.1", "from", "10.0.0.1"],
        ["ip", "-j", "route", "get", "10.0.1.1", "from", "10.0.1.1"],
    ]
    assert [route.taken for route in found.routes] == [expected] * 2


# Which GID


@pytest.mark.parametrize(
    ("gid", "version", "expected"),
    [
        ("0000:0000:0000:0000:0000:ffff:0a00:0001", "RoCE v2", "v2 IPv4"),
        ("2001:0db8::1", "RoCE v2", "v2 IPv6 global"),
        ("fe80::1", "RoCE v2", "v2 IPv6 link-local"),
        ("fe80::1", "IB/RoCE v1", "v1 IPv6 link-local"),
        ("::ffff:10.0.0.1", None, "v1 IPv4"),
        ("nonsense", "RoCE v2", None),
    ],
)
def test_kinds(gid: str, version: str | None, expected: str | None) -> None:
    assert kind(Gid(index=0, gid=gid, type=version)) == expected


def test_ucx_takes_the_first_of_the_best_kind() -> None:
    table = [
        ("fe80::1", "RoCE v2"),
        ("::ffff:10.0.0.1", "IB/RoCE v1"),
        ("2001:db8::1", "RoCE v2"),
        ("::ffff:10.0.0.1", "RoCE v2"),
        ("::ffff:10.0.0.9", "RoCE v2"),
    ]
    port = Port(number=1, gids=tuple(Gid(index=i, gid=gid, type=kind) for i, (gid, kind) in enumerate(table)))
    found = selected(port, Need())
    assert found is not None
    assert found.index == 3
    forced = selected(port, Need(workers=(WorkerNeed(id="w", env={"UCX_IB_GID_INDEX": "2"}),)))
    assert forced is not None
    assert forced.index == 2
    assert selected(Port(number=1), Need()) is None
