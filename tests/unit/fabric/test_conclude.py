"""When a report is ok, and in which order its rows stand."""

from __future__ import annotations

import pytest

from dynctl.fabric.conclude import by_device, conclude, device_of, floor_between_nodes, stricter, worst_pairs
from dynctl.fabric.report import Check, CheckStatus, PairReport
from dynctl.plan.values import PlannedPair, TransportClass
from dynctl.telemetry.status import Verdict


def need(floor: TransportClass) -> tuple[PlannedPair, ...]:
    return (PlannedPair(from_="p", to="d", path=floor, floor=floor, reason="test"),)


def row(status: CheckStatus, target: str = "mlx5_0") -> Check:
    return Check(id="x", target=target, status=status)


@pytest.mark.parametrize(("verdict", "floor", "status", "ok"), [
    ("shm", "shm", "pass", True),
    ("rdma", "shm", "warn", True),
    ("rdma", "rdma", "skip", True),
    ("tcp", "tcp", "pass", True),
    ("tcp", "rdma", "pass", False),
    ("shm", "rdma", "pass", False),
    ("mixed", "shm", "pass", False),
    ("unknown", "tcp", "pass", False),
    ("rdma", "rdma", "fail", False),
])  # fmt: skip
def test_ok_is_what_is_required_and_proven(
    verdict: Verdict, floor: TransportClass, status: CheckStatus, ok: bool
) -> None:
    pairs = [PairReport(from_="p", to="d", verdict=verdict)]
    report = conclude(required="auto", needed=need(floor), checks=[row(status)], pairs=pairs)
    assert (report.ok, report.verdict) == (ok, verdict)


def test_a_pair_that_was_not_proven_is_not_ok() -> None:
    report = conclude(required="auto", needed=need("tcp"), checks=[], pairs=[])
    assert (report.ok, report.verdict) == (False, "unknown")


def test_one_of_several_transfers_of_a_pair_is_enough_to_fail_it() -> None:
    pairs = [PairReport(from_="p", to="d", verdict="rdma"), PairReport(from_="p", to="d", verdict="tcp")]
    report = conclude(required="rdma", needed=need("rdma"), checks=[], pairs=pairs)
    assert (report.ok, report.verdict) == (False, "tcp")


def test_an_error_is_not_ok_whatever_the_verdict() -> None:
    pairs = [PairReport(from_="p", to="d", verdict="rdma", error="data differ")]
    assert not conclude(required="auto", needed=need("rdma"), checks=[], pairs=pairs).ok


def test_node_checks_alone() -> None:
    assert conclude(required="auto", needed=(), checks=[row("warn")], pairs=[]).ok
    assert not conclude(required="auto", needed=(), checks=[row("fail")], pairs=[]).ok


def test_two_nodes_agree_on_the_stricter_requirement() -> None:
    assert stricter("auto", "auto") == "auto"
    assert stricter("auto", "tcp") == "tcp"
    assert stricter("tcp", "rdma") == "rdma"
    assert floor_between_nodes("auto", rdma=True) == "rdma"
    assert floor_between_nodes("auto", rdma=False) == "tcp"
    assert floor_between_nodes("shm", rdma=True) == "shm"


def test_devices_and_rows_stand_worst_first() -> None:
    rows = [row("pass", "a"), row("warn", "b:1"), row("pass", "c/1"), row("fail", "c/1"), row("skip", "b")]
    found = by_device(rows)
    assert [name for name, _ in found] == ["c", "b", "a"]
    assert [r.status for r in found[0][1]] == ["fail", "pass"]
    assert device_of("10.0.0.1 mlx5_0:1") == "10.0.0.1 mlx5_0"
    assert device_of("/dev/gdrdrv") == "/dev/gdrdrv"
    assert device_of(":1") == ":1"


def test_pairs_stand_worst_first() -> None:
    pairs = [
        PairReport(from_="a", to="b", verdict="rdma", gigabytes_per_s=2),
        PairReport(from_="a", to="c", verdict="rdma", gigabytes_per_s=1),
        PairReport(from_="a", to="d", verdict="tcp", gigabytes_per_s=9),
        PairReport(from_="a", to="e", verdict="rdma", gigabytes_per_s=9, error="x"),
    ]
    assert [pair.to for pair in worst_pairs(pairs)] == ["e", "d", "c", "b"]
