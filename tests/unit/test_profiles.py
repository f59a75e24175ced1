"""Every profile for GPUs, planned against a machine it is made for, with the expected seats spelled out."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dynctl.hardware import imports
from dynctl.hardware.values import Hardware
from dynctl.plan.resolve import resolve
from dynctl.plan.values import Plan
from dynctl.topology.load import load
from tests.unit.plan.machines import cpu, facts

PROFILES = Path(__file__).parents[2] / "profiles"
SNAPSHOTS = Path(__file__).parents[1] / "data/snapshots"

Seats = dict[str, tuple[list[int], str, str]]
"""GPUs, NICs and cores of each worker."""

PLANNED: list[tuple[str, str, Seats, str]] = [
    (
        "h200-2p1d",
        "h200x8",
        {
            "prefill-0": ([0, 1], "mlx5_0 mlx5_1", "0-14"),
            "prefill-1": ([2, 3], "mlx5_2 mlx5_3", "15-29"),
            "decode-0": ([4, 5, 6, 7], "mlx5_4 mlx5_5 mlx5_6 mlx5_7", "32-61"),
        },
        "nvlink",
    ),
    (
        "h200-4p4d",
        "h200x8",
        {
            "prefill-0": ([0], "mlx5_0", "0-6"),
            "prefill-1": ([1], "mlx5_1", "7-13"),
            "prefill-2": ([2], "mlx5_2", "14-20"),
            "prefill-3": ([3], "mlx5_3", "21-27"),
            "decode-0": ([4], "mlx5_4", "32-38"),
            "decode-1": ([5], "mlx5_5", "39-45"),
            "decode-2": ([6], "mlx5_6", "46-52"),
            "decode-3": ([7], "mlx5_7", "53-59"),
        },
        "nvlink",
    ),
    (
        "h100-2p1d",
        "h100x8",
        {
            "prefill-0": ([0, 1], "mlx5_0 mlx5_1", "0-14"),
            "prefill-1": ([2, 3], "mlx5_2 mlx5_3", "15-29"),
            "decode-0": ([4, 5, 6, 7], "mlx5_4 mlx5_5 mlx5_6 mlx5_7", "32-61"),
        },
        "nvlink",
    ),
    (
        "h100-4p4d",
        "h100x8",
        {
            "prefill-0": ([0], "mlx5_0", "0-6"),
            "prefill-1": ([1], "mlx5_1", "7-13"),
            "prefill-2": ([2], "mlx5_2", "14-20"),
            "prefill-3": ([3], "mlx5_3", "21-27"),
            "decode-0": ([4], "mlx5_4", "32-38"),
            "decode-1": ([5], "mlx5_5", "39-45"),
            "decode-2": ([6], "mlx5_6", "46-52"),
            "decode-3": ([7], "mlx5_7", "53-59"),
        },
        "nvlink",
    ),
    (
        "1p1d",
        "h100x8",
        {
            "prefill-0": ([0], "mlx5_0", "0-6"),
            "decode-0": ([1], "mlx5_1", "7-13"),
        },
        "nvlink",
    ),
    (
        "pairs-2p2d",
        "a800x8-pairs",
        {
            "prefill-0": ([0, 1], "mlx5_0 mlx5_1", "0-29"),
            "prefill-1": ([2, 3], "mlx5_2 mlx5_3", "30-59"),
            "decode-0": ([4, 5], "mlx5_4 mlx5_5", "62-91"),
            "decode-1": ([6, 7], "mlx5_6 mlx5_7", "92-121"),
        },
        "nvlink",
    ),
    (
        "no-rdma-2p2d",
        "l40s-x4-no-rdma",
        {
            "prefill-0": ([0], "", "0-14"),
            "prefill-1": ([1], "", "15-29"),
            "decode-0": ([2], "", "32-46"),
            "decode-1": ([3], "", "47-61"),
        },
        "tcp",
    ),
    (
        "shared-1p1d",
        "h100x1",
        {
            "prefill-0": ([0], "", "0-12"),
            "decode-0": ([0], "", "13-25"),
        },
        "tcp",
    ),
    (
        "agg",
        "h100x1",
        {
            "worker-0": ([0], "", "0-29"),
        },
        "",
    ),
]
"""Profile, snapshot, seats, and the class of every pair."""


def machine(name: str) -> Hardware:
    return imports.load(SNAPSHOTS / f"{name}.json")


def planned(profile: str, on: Hardware) -> Plan:
    return resolve(load(PROFILES / f"{profile}.yaml"), facts(on))


@pytest.mark.parametrize(
    ("profile", "snapshot", "seats", "path"), PLANNED, ids=[f"{row[0]}-{row[1]}" for row in PLANNED]
)
def test_every_worker_sits_where_an_expert_would_put_it(profile: str, snapshot: str, seats: Seats, path: str) -> None:
    hardware = machine(snapshot)
    made = planned(profile, hardware)
    assert {one.id: (list(one.gpus), " ".join(one.nics), one.cpus) for one in made.workers()} == seats
    assert {pair.path for pair in made.transport.pairs} == ({path} if path else set())
    uuids = {gpu.index: gpu.uuid for gpu in hardware.gpus}
    for worker in made.workers():
        devices = [uuids[gpu] or str(gpu) for gpu in worker.gpus]
        assert worker.env["CUDA_VISIBLE_DEVICES"] == ",".join(devices)


EIGHT = [f"mlx5_{number}" for number in range(8)]


def test_two_nodes_take_all_of_both_and_meet_over_rdma() -> None:
    hardware = machine("h100x8")
    topology = load(PROFILES / "two-nodes-1p1d.yaml")
    made = resolve(topology, facts(hardware, node="a", elsewhere={"b": hardware}))
    seats = {one.id: (one.node, list(one.gpus), list(one.nics), one.cpus) for one in made.workers()}
    assert seats == {
        "prefill-0": ("a", [*range(8)], EIGHT, "0-29,32-61"),
        "decode-0": ("b", [*range(8)], EIGHT, "0-29,32-61"),
    }
    assert [(pair.from_, pair.to, pair.path, pair.floor) for pair in made.transport.pairs] == [
        ("prefill-0", "decode-0", "rdma", "rdma")
    ]
    urls = {one.id: one.probes.url for one in made.processes}
    assert urls["prefill-0"] == f"http://10.0.0.1:{made.process('prefill-0').ports['http']}"
    assert urls["decode-0"] == f"http://10.0.0.2:{made.process('decode-0').ports['http']}"


def test_no_profile_is_left_out() -> None:
    apart = {path.stem for kind in ("cpu-*", "dynamo-*") for path in PROFILES.glob(f"{kind}.yaml")} | {"two-nodes-1p1d"}
    assert {row[0] for row in PLANNED} | apart == {path.stem for path in PROFILES.glob("*.yaml")}


@pytest.mark.parametrize("profile", sorted(path.stem for path in PROFILES.glob("cpu-*.yaml")))
def test_cpu_profiles_plan_on_two_cores(profile: str) -> None:
    assert all(not one.gpus and not one.nics for one in planned(profile, cpu(2)).workers())


def test_without_rdma_push_is_offered() -> None:
    (warning,) = planned("no-rdma-2p2d", machine("l40s-x4-no-rdma")).warnings
    assert "direction: push" in warning


def test_workers_on_one_gpu_take_turns_and_its_memory_is_enough() -> None:
    prefill, decode = planned("shared-1p1d", machine("h100x1")).workers()
    assert decode.after == (prefill.id,) or prefill.after == (decode.id,)
    shares = [float(one.argv[one.argv.index("--gpu-memory-utilization") + 1]) for one in (prefill, decode)]
    assert shares == [0.45, 0.45]


def test_two_profiles_do_not_fit_a_smaller_machine() -> None:
    from dynctl.errors import HostError

    hardware = machine("h200x8")
    half = msgspec.structs.replace(hardware, gpus=hardware.gpus[:4])
    for profile in ("h200-2p1d", "h200-4p4d"):
        with pytest.raises(HostError, match="GPUs"):
            planned(profile, half)


@pytest.mark.parametrize("path", sorted(SNAPSHOTS.glob("*.json")), ids=lambda path: path.stem)
def test_snapshots_say_what_they_are(path: Path) -> None:
    assert any("synthetic" in note or "derived from" in note for note in machine(path.stem).notes)
