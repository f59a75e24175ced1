"""Which GPUs a worker gets: NVLink peers, sockets, NICs shared least, MIG slices, shares, pins; and the reasons."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dynctl.errors import HostError, UsageError
from dynctl.hardware import imports
from dynctl.hardware.values import Hardware, Holder
from dynctl.plan.values import Plan
from dynctl.ui.plan import plan_text
from tests.unit.hardware import matrices
from tests.unit.plan import shapes
from tests.unit.plan.machines import cpu, gpus, made, pools


def seats(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {process.id: process.gpus for process in plan.workers()}


def with_gpu(hardware: Hardware, index: int, **changes: Any) -> Hardware:
    changed = [msgspec.structs.replace(gpu, **changes) if gpu.index == index else gpu for gpu in hardware.gpus]
    return msgspec.structs.replace(hardware, gpus=tuple(changed))


@pytest.mark.parametrize(("hardware", "prefill", "decode", "expected"), [
    (imports.load(matrices.PAIRS), "{}", "{}", {"prefill-0": (0,), "decode-0": (2,)}),
    (imports.load(matrices.PAIRS), "{workers: 2, tp: 2}", "{tp: 4}",
     {"prefill-0": (0, 1), "prefill-1": (2, 3), "decode-0": (4, 5, 6, 7)}),
    (imports.load(matrices.HGX), "{workers: 2, tp: 2}", "{tp: 4}",
     {"prefill-0": (0, 1), "prefill-1": (2, 3), "decode-0": (4, 5, 6, 7)}),
    (imports.load(matrices.HGX), "{workers: 4}", "{workers: 4}",
     {**{f"prefill-{at}": (at,) for at in range(4)}, **{f"decode-{at}": (4 + at,) for at in range(4)}}),
    (shapes.PAIRS, "{workers: 2}", "{workers: 2}",
     {"prefill-0": (0,), "prefill-1": (2,), "decode-0": (4,), "decode-1": (6,)}),
    (shapes.FEW, "{}", "{}", {"prefill-0": (0,), "decode-0": (2,)}),
    # the socket that stays whole is the larger worker's
    (shapes.HGX, "{workers: 3}", "{tp: 4}",
     {"prefill-0": (0,), "prefill-1": (1,), "prefill-2": (2,), "decode-0": (4, 5, 6, 7)}),
    (shapes.PAIRS, "{workers: 3}", "{tp: 4}",
     {"decode-0": (0, 1, 2, 3), "prefill-0": (4,), "prefill-1": (6,), "prefill-2": (5,)}),
    (shapes.HGX, "{}", "{tp: 6}", {"prefill-0": (0,), "decode-0": (1, 2, 4, 5, 6, 7)}),
    (shapes.FLAT, "{}", "{}", {"prefill-0": (1,), "decode-0": (0,)}),  # GPU 1 is the only one near the NICs
    (shapes.BRIDGED, "{}", "{}", {"prefill-0": (0,), "decode-0": (2,)}),
    (shapes.BRIDGED, "{workers: 2}", "{workers: 2}",
     {"prefill-0": (0,), "prefill-1": (3,), "decode-0": (1,), "decode-1": (2,)}),  # 0-2 and 1-3 are the peers
    (shapes.BRIDGED, "{tp: 2}", "{tp: 2}", {"prefill-0": (0, 2), "decode-0": (1, 3)}),
    (shapes.NO_NICS, "{tp: 2}", "{tp: 2}", {"prefill-0": (0, 1), "decode-0": (2, 3)}),
])  # fmt: skip
def test_gpus(hardware: Hardware, prefill: str, decode: str, expected: dict[str, tuple[int, ...]]) -> None:
    assert seats(made(pools(prefill, decode), on=hardware)) == expected


def test_a_small_gpu_is_taken_by_a_pin_only() -> None:
    hardware = with_gpu(gpus(3), 0, memory_bytes=24 << 30, name="NVIDIA L4")
    assert seats(made(pools(), on=hardware)) == {"prefill-0": (1,), "decode-0": (2,)}
    assert seats(made(pools("{pin: [{gpus: [0]}]}"), on=hardware)) == {"prefill-0": (0,), "decode-0": (1,)}
    with pytest.raises(HostError) as caught:
        made(pools("{tp: 2}"), on=hardware)
    assert caught.value.why == ("GPU 0 has 24 GiB of memory, the largest here 141 GiB",)


def test_lost_and_held_gpus_are_named_with_what_frees_them() -> None:
    orphan = Holder(pid=4121, command="VLLM::EngineCore", kind="orphan", run="qwen3")
    hardware = with_gpu(with_gpu(gpus(3), 0, lost="fell off the bus"), 2, holders=(orphan,))
    with pytest.raises(HostError) as caught:
        made(pools(), on=hardware)
    assert caught.value.cause == "the topology needs 2 GPUs; this machine has 1 free of 3"
    assert caught.value.why == (
        "GPU 0 is lost: fell off the bus",
        "GPU 2 is held by pid 4121 (VLLM::EngineCore, orphan of run 'qwen3')",
    )
    assert (caught.value.fix or "").endswith("or free some: `dynctl down qwen3`")
    with pytest.raises(UsageError) as pinned:
        made(pools("{pin: [{gpus: [2]}]}"), on=hardware)
    assert pinned.value.fix == "`dynctl down qwen3`"


# MIG


def test_slices_are_seats_for_workers_of_one_gpu() -> None:
    plan = made(pools("{}", "{workers: 3}"), on=shapes.sliced())
    assert [(process.gpus, process.gpu_uuids) for process in plan.workers()] == [
        ((1,), ("GPU-0001",)), ((0,), ("MIG-0000",)), ((0,), ("MIG-0001",)), ((0,), ("MIG-0002",)),
    ]  # fmt: skip
    assert plan.process("decode-1").env["CUDA_VISIBLE_DEVICES"] == "MIG-0001"
    assert {pair.path for pair in plan.transport.pairs} == {"rdma"}
    assert "MIG slices have neither NVLink nor cuda_ipc" in plan.transport.pairs[0].reason


def test_a_worker_of_two_gpus_fits_on_no_slices() -> None:
    with pytest.raises(HostError) as caught:
        made(pools("{}", "{tp: 2}"), on=shapes.sliced())
    assert "needs whole ones, which are not in MIG mode" in caught.value.why[-1]
    with pytest.raises(HostError, match="needs 4 GPUs; this machine has 3 free of 4"):
        made(pools("{}", "{workers: 3}"), on=shapes.sliced(busy=True))


@pytest.mark.parametrize(("pin", "words"), [
    ("{gpus: [0]}", "GPU 0, which is cut into MIG slices"),
    ("{gpus: [GPU-0000]}", "GPU-0000, which is cut into MIG slices"),
    ("{gpus: [MIG-0009]}", "MIG-0009, which does not exist"),
])  # fmt: skip
def test_a_pin_names_a_slice_by_its_uuid(pin: str, words: str) -> None:
    plan = made(pools("{pin: [{gpus: [MIG-0002]}]}"), on=shapes.sliced())
    assert plan.process("prefill-0").gpu_uuids == ("MIG-0002",)
    with pytest.raises(UsageError) as caught:
        made(pools(f"{{pin: [{pin}]}}"), on=shapes.sliced())
    assert words in caught.value.cause
    assert caught.value.why == ("GPUs that are free: 1, MIG-0000, MIG-0001, MIG-0002",)


def test_pins_by_uuid_and_index_are_the_same_gpu() -> None:
    assert seats(made(pools("{pin: [{gpus: [GPU-0003]}]}"), on=gpus(4)))["prefill-0"] == (3,)
    with pytest.raises(UsageError) as caught:
        made(pools("{pin: [{gpus: [GPU-0003]}]}", "{pin: [{gpus: [3]}]}"), on=gpus(4))
    assert caught.value.cause == "decode-0 is pinned to GPU 3, which prefill-0 has"
    with pytest.raises(UsageError, match="decode-0 is pinned to GPU-0003, which decode-0 has"):
        made(pools("{}", "{tp: 2, pin: [{gpus: [3, GPU-0003]}]}"), on=gpus(4))


# share


def test_shares_of_one_gpu_start_one_after_the_other() -> None:
    plan = made(pools("{share: 0.45}", "{share: 0.45}"), on=gpus(2))
    prefill, decode = plan.workers()
    assert (prefill.gpus, decode.gpus) == ((0,), (0,))
    assert (prefill.after, decode.after) == ((), ("prefill-0",))
    for process in (prefill, decode):
        assert process.argv[process.argv.index("--gpu-memory-utilization") + 1] == "0.45"
    (pair,) = plan.transport.pairs
    assert (pair.path, pair.reason) == ("nvlink", "both are on GPU 0: cuda_ipc within one GPU")


@pytest.mark.parametrize(("prefill", "decode", "expected"), [
    ("{workers: 2, share: 0.5}", "{share: 0.5}", [0, 0, 1]),
    ("{workers: 2, share: 0.3}", "{workers: 2, share: 0.4}", [0, 0, 0, 1]),
    ("{share: 0.6}", "{share: 0.6}", [0, 1]),
    ("{}", "{workers: 2, share: 0.5}", [0, 1, 1]),
    ("{share: 0.5, args: {gpu-memory-utilization: 0.7}}", "{share: 0.5}", [0, 1]),
    ("{share: 0.1}", "{workers: 9, share: 0.1}", [0] * 10),
    ("{share: 0.4, pin: [{gpus: [1]}]}", "{share: 0.4}", [1, 1]),
    ("{share: 0.4, pin: [{gpus: [1]}]}", "{share: 0.4, pin: [{gpus: [1]}]}", [1, 1]),
])  # fmt: skip
def test_shares_come_to_one_at_most(prefill: str, decode: str, expected: list[int]) -> None:
    plan = made(pools(prefill, decode), on=gpus(2))
    assert [process.gpus[0] for process in plan.workers()] == expected


def test_shares_that_do_not_fit() -> None:
    with pytest.raises(HostError, match="needs 3 GPUs; this machine has 2 free of 2"):
        made(pools("{workers: 2, share: 0.6}", "{share: 0.6}"), on=gpus(2))
    with pytest.raises(UsageError, match=r"no room for it: the shares there come to 1\.2"):
        made(pools("{share: 0.6, pin: [{gpus: [1]}]}", "{share: 0.6, pin: [{gpus: [1]}]}"), on=gpus(2))
    with pytest.raises(UsageError, match="decode-0 is pinned to GPU 1, which prefill-0 has"):
        made(pools("{share: 0.6, pin: [{gpus: [1]}]}", "{pin: [{gpus: [1]}]}"), on=gpus(2))


def test_one_gpu_without_nvlink_does_not_read_by_cuda_ipc() -> None:
    text, hardware = pools("{share: 0.4}", "{share: 0.4}"), gpus(1, nvlink=False)
    plan = made(text, on=hardware)
    assert plan.transport.pairs[0].path == "tcp"
    assert "direction: push" in plan.warnings[0]
    push = made(pools("{share: 0.4}", "{share: 0.4}", "transport: {direction: push}\n"), on=hardware)
    assert (push.transport.pairs[0].path, push.warnings) == ("nvlink", ())


def test_without_a_gpu_a_share_has_no_effect() -> None:
    plan = made(pools("{share: 0.4}", "{share: 0.4}"), on=cpu())
    assert "this machine has no GPU: `share` has no effect" in plan.warnings
    assert "--gpu-memory-utilization" not in plan.process("decode-0").argv


# cores and memory


def test_cores_are_in_proportion_to_the_gpus_of_the_node() -> None:
    plan = made(pools("{}", "{tp: 2}"), on=shapes.HGX)
    assert [(process.cpus, process.memory_nodes) for process in plan.workers()] == [("0-6", (0,)), ("7-21", (0,))]
    spans = made(pools("{}", "{tp: 6}"), on=shapes.HGX).process("decode-0")
    assert (spans.cpus, spans.memory_nodes, spans.numa) == ("7-21,32-61", (), None)


def test_hyperthreads_stay_together() -> None:
    hardware = imports.load(matrices.HGX)
    plan = made(pools("{}", "{}"), on=hardware)
    assert [process.cpus for process in plan.workers()] == ["0-10,96-106", "11-21,107-117"]


def test_a_quota_shrinks_the_slices() -> None:
    limits = msgspec.structs.replace(shapes.HGX.limits, cpu_quota=32.0)
    hardware = msgspec.structs.replace(shapes.HGX, limits=limits)
    assert made(pools("{tp: 2}", "{tp: 2}"), on=hardware).process("prefill-0").cpus == "0-6"
    tiny = msgspec.structs.replace(shapes.HGX, limits=msgspec.structs.replace(limits, cpu_quota=2.0))
    assert made(pools(), on=tiny).process("prefill-0").cpus is None


def test_without_gpus_workers_are_spread_over_the_nodes() -> None:
    plan = made(pools(), on=shapes.machine([], [], nodes=2, cores=8))
    assert [(process.cpus, process.numa) for process in plan.workers()] == [("0-5", 0), ("8-13", 1)]


# reasons


def test_every_choice_has_a_reason() -> None:
    decode = made(pools("{workers: 2, tp: 2}", "{tp: 4}"), on=shapes.STORAGE).process("decode-0")
    assert decode.reasons == (
        "GPUs 4-7: NVLink peers on NUMA node 1",
        *(f"mlx5_{at} for GPU {at}: PIX, the nearest; no other GPU of this run uses it" for at in range(4, 8)),
        "not used: mlx5_8 (its netdev carries NFS), mlx5_9 (25 Gb/s, others 400), mlx5_10 (no active port)",
        "30 cores: 4 of 4 GPUs of NUMA node 1 (32 cores); 2 of each node are left to frontend and supervisor",
        "memory of NUMA node 1: all of its GPUs are there",
    )


def test_explain_shows_them_within_the_width() -> None:
    plan = made(pools("{share: 0.4}", "{share: 0.4}"), on=shapes.FEW)
    shown = plan_text(plan, 80, explain=True)
    words = " ".join(shown.split())
    assert "why GPU 0: 0.4 of it, 2 workers share it; on NUMA node 0" in words
    assert "starts after prefill-0" in words
    for process in plan.workers():
        assert all(f"why {reason}" in words for reason in process.reasons)
    assert all(len(line) <= 80 for line in shown.splitlines() if "{" not in line)
    assert "why" not in plan_text(plan, 80).split()
