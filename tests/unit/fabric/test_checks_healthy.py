"""On healthy nodes no row is red; without RDMA nothing is, unless it is required."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from dynctl.fabric.checks.judge import RULES, judge
from dynctl.fabric.checks.observe import observe
from dynctl.fabric.checks.values import Need, Observed, Since, WorkerNeed
from dynctl.fabric.report import Check
from tests.unit.fabric.trees import NICS, Tree, flat, need


def red(rows: tuple[Check, ...]) -> list[tuple[str, str, str | None]]:
    return [(row.id, row.target, row.cause) for row in rows if row.status in ("warn", "fail")]


@pytest.mark.parametrize("link_layer", ["Ethernet", "InfiniBand"])
def test_a_healthy_node_has_no_red_row(tmp_path: Path, link_layer: str) -> None:
    Tree(tmp_path, link_layer)
    observed = observe(tmp_path)
    rows = judge(observed, need(), Since(earlier=observed, seconds=10))
    assert red(rows) == []
    assert {rule.id for rule in RULES} == {row.id for row in rows}
    passed = {row.id for row in rows if row.status == "pass"}
    assert {"dev", "uverbs", "state", "rate", "gid0", "err", "hwerr", "pcie", "mrrs", "acs", "topo", "numa"} <= passed
    roce_only = {"ndev", "ctr", "gid", "gidsel", "mtu", "qos", "cc"}
    assert (roce_only <= passed) == (link_layer == "Ethernet")
    for row in rows:
        assert row.status != "skip" or row.cause, row


def test_rows_come_for_every_device_and_port(tmp_path: Path) -> None:
    Tree(tmp_path)
    rows = judge(observe(tmp_path), need())
    assert [row.target for row in rows if row.id == "dev"] == [f"mlx5_{index}" for index in range(NICS)]
    assert [row.target for row in rows if row.id == "state"] == [f"mlx5_{index}:1" for index in range(NICS)]
    assert {row.cause for row in rows if row.id in ("err", "hwerr", "cc")} == {"give --watch 10s"}


def test_a_machine_without_rdma(tmp_path: Path) -> None:
    flat(tmp_path)
    rows = judge(observe(tmp_path), Need(path="shm", workers=(WorkerNeed(id="prefill-0"),)))
    assert red(rows) == []
    assert next(row for row in rows if row.id == "ptrace").status == "pass"
    assert next(row for row in rows if row.id == "memlock").status == "skip"


def test_a_machine_without_rdma_that_must_have_it(tmp_path: Path) -> None:
    flat(tmp_path)
    rows = judge(observe(tmp_path), Need(path="rdma"))
    assert [(row.id, row.status) for row in rows if row.status == "fail"] == [("dev", "fail"), ("memlock", "fail")]
    assert {row.cause for row in rows if row.id in ("uverbs", "state", "gid", "pcie")} >= {"because dev"}


def test_nothing_at_all_to_read(tmp_path: Path) -> None:
    rows = judge(observe(tmp_path), Need())
    assert red(rows) == []


def test_an_observation_travels(tmp_path: Path) -> None:
    """What one node read can be sent to the other."""
    Tree(tmp_path)
    observed = observe(tmp_path)
    assert msgspec.json.decode(msgspec.json.encode(observed), type=Observed) == observed


def test_the_document_lists_every_row() -> None:
    """A row that the document leaves out can't be looked up."""
    text = (Path(__file__).parents[3] / "docs/check-rdma.md").read_text()
    assert {rule.id for rule in RULES} | {"route"} <= set(re.findall(r"^\| `([a-z0-9]+)` \|", text, re.MULTILINE))
