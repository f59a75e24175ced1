"""Snapshots read back, and those that contradict themselves."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dynctl.errors import UsageError
from dynctl.hardware import matrix, nccl_xml, snapshot
from dynctl.hardware.values import Hardware, MigDevice
from tests.unit.hardware.matrices import HGX, TOPOLOGIES
from tests.unit.plan.machines import ACTIVE, gpus

MACHINE = gpus(4, nics=(ACTIVE,))


def changed(**changes: Any) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(MACHINE, str_keys=True), **changes})


def gpu(at: int, /, **changes: Any) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(MACHINE.gpus[at], str_keys=True)
    return {**built, **changes}


def test_what_was_written_is_read() -> None:
    found = snapshot.parse(msgspec.json.encode(MACHINE), "a.json")
    assert found == msgspec.structs.replace(MACHINE, source="snapshot")


@pytest.mark.parametrize("imported", [
    matrix.parse(HGX.read_text(), "x"),
    nccl_xml.parse((TOPOLOGIES / "hgx-h200-dump.xml").read_bytes(), "x"),
])  # fmt: skip
def test_an_imported_machine_survives_the_way_through_a_snapshot(imported: Hardware) -> None:
    assert snapshot.parse(msgspec.json.encode(imported), "x") == imported


def test_keys_of_a_later_version_are_passed_over() -> None:
    assert snapshot.parse(changed(bluefield=True), "x").gpus == MACHINE.gpus


NIC = msgspec.to_builtins(ACTIVE)
SLICE = msgspec.to_builtins(MigDevice(index=0, uuid="MIG-1"))
BAD = {
    "another schema": (changed(schema=2), "has schema 2"),
    "no schema": (changed(schema=None), "no hardware snapshot"),
    "a plan": (b'{"schema": 1, "name": "x", "processes": []}', "no hardware snapshot"),
    "any JSON": (b'{"schema": 1}', "no hardware snapshot"),
    "a topology": (b'{"schema": 1, "name": "x", "model": "m", "roles": {}}', "no hardware snapshot"),
    "cut off": (changed()[:500], "no readable snapshot"),
    "a wrong type": (changed(gpus=[gpu(0, index="zero")]), "no readable snapshot"),
    "a schema that is none": (changed(schema="one"), "no readable snapshot"),
    "very deep": (b'{"schema": 1, "gpus": ' + b"[" * 200_000, "no readable snapshot"),
    "two of an index": (changed(gpus=[gpu(0), gpu(1, index=0)]), "contradicts itself"),
    "a negative index": (changed(gpus=[gpu(0, index=-1, nvlinks={})]), "contradicts itself"),
    "two of a UUID": (changed(gpus=[gpu(0, nvlinks={}), gpu(1, uuid="GPU-0000", nvlinks={})]), "contradicts itself"),
    "a UUID that is none": (changed(gpus=[gpu(0, uuid="", nvlinks={})]), "contradicts itself"),
    "two slices of a UUID": (changed(gpus=[gpu(0, nvlinks={}, mig=[SLICE, SLICE])]), "contradicts itself"),
    "a peer that is missing": (changed(gpus=[gpu(0)]), "contradicts itself"),
    "a distance to a missing GPU": (
        changed(gpus=[gpu(0, nvlinks={}, gpu_distances={"9": "PIX"})]), "contradicts itself"),
    "a distance to a missing NIC": (
        changed(gpus=[gpu(0, nvlinks={}, nic_distances={"mlx5_9": "PIX"})]), "contradicts itself"),
    "negative links": (changed(gpus=[gpu(0, nvlinks={"0": -1})]), "contradicts itself"),
    "two NICs of a name": (changed(nics=[NIC, NIC]), "contradicts itself"),
    "a port twice": (changed(nics=[{**NIC, "ports": NIC["ports"] * 2}]), "contradicts itself"),
    "two of a node": (changed(numa_nodes=[{"index": 0}, {"index": 0}]), "contradicts itself"),
    "a core that can't be": (changed(cores=[0, 1 << 40]), "contradicts itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_snapshot_is_refused(case: str) -> None:
    data, words = BAD[case]
    with pytest.raises(UsageError) as caught:
        snapshot.parse(data, "a.json")
    assert words in caught.value.cause
    assert caught.value.where == "a.json"
    assert caught.value.fix


def test_a_contradiction_is_named() -> None:
    with pytest.raises(UsageError) as caught:
        snapshot.parse(BAD["a peer that is missing"][0], "a.json")
    assert caught.value.why[0] == "GPU 0 names a peer GPU 1 that is not in the snapshot"
