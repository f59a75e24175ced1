"""Which transfers prove a plan, and what each end of them is given."""

from __future__ import annotations

import pytest

from dynctl.fabric.probe.ends import EMULATION, directions, rank_pairs, transfers
from dynctl.hardware.values import Nic, NicPort
from tests.unit.plan.machines import cpu, gpus, made, pools

NICS = tuple(
    Nic(
        name=f"mlx5_{index}",
        pci=f"0000:{index + 32:02x}:00.0",
        ports=(NicPort(number=1, state="ACTIVE", phys_state="LinkUp", rate_gigabits_per_s=400.0),),
    )
    for index in range(4)
)


@pytest.mark.parametrize(
    ("sources", "targets", "expected"),
    [
        (0, 0, ((0, 0),)),
        (1, 1, ((0, 0),)),
        (2, 4, ((0, 0), (0, 1), (1, 2), (1, 3))),
        (4, 2, ((0, 0), (1, 0), (2, 1), (3, 1))),
    ],
)
def test_every_rank_occurs(sources: int, targets: int, expected: tuple[tuple[int, int], ...]) -> None:
    assert rank_pairs(sources, targets) == expected


def test_host_memory_has_one_transfer_per_pair_in_the_workers_own_place() -> None:
    plan = made()
    (one,) = transfers(plan, cpu(), plan.transport.pairs)
    assert (one.source.id, one.target.id, one.floor, one.pair) == (
        "prefill-0",
        "decode-0",
        "shm",
        "prefill-0 -> decode-0",
    )
    assert one.target.python == plan.process("decode-0").argv[0]
    assert (one.target.memory, one.target.gpu, one.line_rate_gigabytes_per_s) == ("host", None, None)
    assert plan.process("decode-0").env[EMULATION] == "n"
    assert EMULATION not in one.target.env
    assert one.target.env["UCX_NET_DEVICES"] == "lo"


def test_the_users_own_emulation_setting_stays_where_tcp_will_do() -> None:
    plan = made(pools(more="transport: {require: tcp, env: {UCX_PROTO_EMULATION_ENABLE: 'n'}}\n"), on=cpu())
    (one,) = transfers(plan, cpu(), plan.transport.pairs)
    assert one.target.env[EMULATION] == "n"


def test_every_gpu_has_a_child_that_sees_it_alone() -> None:
    hardware = gpus(4)
    plan = made(pools("{tp: 2}", "{tp: 2}"), on=hardware)
    found = transfers(plan, hardware, plan.transport.pairs)
    assert len(found) == 2
    assert len({end.id for one in found for end in (one.source, one.target)}) == 4
    for one in found:
        for end in (one.source, one.target):
            assert end.memory == "cuda"
            assert end.env["CUDA_VISIBLE_DEVICES"] == f"GPU-{end.gpu:04d}"


def test_a_rank_has_its_own_nic_and_the_line_rate_of_the_slower_end() -> None:
    hardware = gpus(4, nvlink=False, nics=NICS)
    pins = (
        "{tp: 2, pin: [{gpus: [0, 1], nics: [mlx5_0, mlx5_1]}]}",
        "{tp: 2, pin: [{gpus: [2, 3], nics: [mlx5_2, mlx5_3]}]}",
    )
    plan = made(pools(*pins), on=hardware)
    first, second = transfers(plan, hardware, plan.transport.pairs)
    assert (first.source.nics, first.target.nics) == (("mlx5_0",), ("mlx5_2",))
    assert second.target.nics == ("mlx5_3",)
    assert "VLLM_GPU_NIC_PCIE_MAPPING" in plan.process("prefill-0").env
    assert first.source.env["UCX_NET_DEVICES"].split(",") == ["mlx5_0:1", "lo"]
    assert second.target.env["UCX_NET_DEVICES"].split(",") == ["mlx5_3:1", "lo"]
    assert first.line_rate_gigabytes_per_s == 50.0


def test_directions_follow_the_topology() -> None:
    pull, push = made(), made(pools(more="transport: {direction: push}\n"), on=cpu())
    assert directions(pull, both=False) == ("read",)
    assert directions(push, both=False) == ("write",)
    assert directions(pull, both=True) == ("read", "write")
