"""Which class of path a pair can have on a machine, what `require` makes of it, and how UCX_TLS narrows it."""

from __future__ import annotations

import msgspec
import pytest

from dynctl.errors import TransportError
from dynctl.hardware.values import Hardware
from dynctl.plan.values import PlannedPair
from tests.unit.plan.machines import ACTIVE, CMA_REFUSED, INACTIVE, cpu, gpus, made, pools

CPU = cpu()
NO_CMA = cpu(cma=CMA_REFUSED)
NVLINK = gpus(2)
RDMA = gpus(2, nvlink=False, nics=(ACTIVE,))
DOWN = gpus(2, nvlink=False, nics=(INACTIVE,))
BARE = gpus(2, nvlink=False)


def pair(hardware: Hardware, require: str = "auto", tls: str | None = None) -> PlannedPair:
    env = f", env: {{UCX_TLS: '{tls}'}}" if tls is not None else ""
    plan = made(pools(more=f"transport: {{require: {require}{env}}}\n"), on=hardware)
    (only,) = plan.transport.pairs
    return only


@pytest.mark.parametrize(("hardware", "require", "path", "floor", "reason"), [
    (CPU, "auto", "shm", "shm", "CMA is permitted (Yama ptrace_scope is 1)"),
    (CPU, "shm", "shm", "shm", "CMA is permitted"),
    (CPU, "tcp", "shm", "tcp", "CMA is permitted"),
    (NO_CMA, "auto", "tcp", "tcp", "CMA is not permitted (Yama ptrace_scope is 2)"),
    (NO_CMA, "tcp", "tcp", "tcp", "CMA is not permitted"),
    (NVLINK, "auto", "nvlink", "nvlink", "NVLink peers"),
    (NVLINK, "rdma", "nvlink", "rdma", "NVLink peers"),
    (NVLINK, "tcp", "nvlink", "tcp", "NVLink peers"),
    (RDMA, "auto", "rdma", "rdma", "RDMA ports are active"),
    (RDMA, "shm", "rdma", "shm", "RDMA ports are active"),
    (DOWN, "auto", "tcp", "tcp", "no active RDMA port"),
    (BARE, "auto", "tcp", "tcp", "no active RDMA port"),
])  # fmt: skip
def test_paths(hardware: Hardware, require: str, path: str, floor: str, reason: str) -> None:
    found = pair(hardware, require)
    assert (found.from_, found.to, found.path, found.floor) == ("prefill-0", "decode-0", path, floor)
    assert reason in found.reason


@pytest.mark.parametrize(("hardware", "require", "why", "fix"), [
    (CPU, "rdma", "no device in /sys/class/infiniband", "modprobe"),
    (CPU, "nvlink", "best path on this machine is shm", "require: auto"),
    (NO_CMA, "shm", "best path on this machine is tcp", "require: auto"),
    (RDMA, "nvlink", "best path on this machine is rdma", "require: auto"),
    (DOWN, "rdma", "without an active port: mlx5_1", "bring a port up"),
    (BARE, "rdma", "no device in /sys/class/infiniband", "modprobe"),
    (BARE, "shm", "best path on this machine is tcp", "require: auto"),
])  # fmt: skip
def test_a_floor_that_the_machine_can_not_reach(hardware: Hardware, require: str, why: str, fix: str) -> None:
    with pytest.raises(TransportError) as caught:
        pair(hardware, require)
    assert caught.value.exit_code == 4
    assert f"can't reach `require: {require}`" in caught.value.cause
    assert "transport.require" in (caught.value.where or "")
    assert any(why in line for line in caught.value.why)
    assert fix in (caught.value.fix or "")


@pytest.mark.parametrize(("hardware", "tls", "path"), [
    (CPU, "tcp", "tcp"),
    (CPU, " tcp , self ", "tcp"),
    (CPU, "tcp,sm", "shm"),
    (CPU, "cma,tcp", "shm"),
    (CPU, "^cma", "shm"),  # what is left may still be shared memory: UCX's own word decides
    (CPU, "all", "shm"),
    (CPU, "", "shm"),
    (NVLINK, "tcp,cuda_copy", "tcp"),
    (NVLINK, "tcp,self,cuda_copy,cuda_ipc", "nvlink"),
    (NVLINK, "^cuda_ipc", "tcp"),
    (gpus(2, nics=(ACTIVE,)), "^cuda_ipc", "rdma"),
    (gpus(2, nics=(ACTIVE,)), "rc,cuda_copy", "rdma"),
    (RDMA, "tcp,cuda_copy", "tcp"),
    (RDMA, "rc_x,cuda_copy,tcp", "rdma"),
])  # fmt: skip
def test_ucx_tls_narrows_what_auto_expects(hardware: Hardware, tls: str, path: str) -> None:
    found = pair(hardware, tls=tls)
    assert (found.path, found.floor) == (path, path)
    assert ("UCX_TLS" in found.reason) == (path != pair(hardware).path)


def test_ucx_tls_does_not_lower_a_floor_that_was_asked_for() -> None:
    found = pair(CPU, "shm", tls="tcp")
    assert (found.path, found.floor) == ("tcp", "shm")


def test_every_pair_is_planned() -> None:
    plan = made(pools("{workers: 2}", "{workers: 3}"), on=gpus(8))
    assert [(p.from_, p.to) for p in plan.transport.pairs] == [
        (f"prefill-{a}", f"decode-{b}") for a in range(2) for b in range(3)
    ]


def test_a_worker_is_reached_by_nvlink_only_if_all_its_gpus_are() -> None:
    hardware = gpus(4)
    alone = {"nvlinks": {}, "nvswitch_links": 0}
    broken = msgspec.structs.replace(hardware.gpus[3], **alone)
    hardware = Hardware(gpus=(*hardware.gpus[:3], broken))
    plan = made(pools("{}", "{tp: 2}"), on=hardware)
    assert plan.transport.pairs[0].path == "nvlink"
    plan = made(pools("{}", "{tp: 3}"), on=hardware)
    assert plan.transport.pairs[0].path == "tcp"
    plan = made(pools("{pin: [{gpus: [3]}]}", "{}"), on=hardware)
    assert plan.transport.pairs[0].path == "tcp"


def test_no_silent_tcp_where_something_faster_is_required() -> None:
    on_rdma = made(pools(more="transport: {require: rdma}\n"), on=RDMA).process("decode-0").env
    assert on_rdma["UCX_PROTO_EMULATION_ENABLE"] == "n"
    assert on_rdma["UCX_NET_DEVICES"] == "mlx5_0:1,lo"
    assert made(pools(), on=NVLINK).process("decode-0").env["UCX_PROTO_EMULATION_ENABLE"] == "n"
    for more in ("transport: {require: tcp}\n", "transport: {env: {UCX_TLS: tcp}}\n"):
        assert "UCX_PROTO_EMULATION_ENABLE" not in made(pools(more=more), on=CPU).process("decode-0").env


def test_the_transports_own_words() -> None:
    planned = made(pools(more="transport: {direction: push, require: tcp}\n"), on=CPU).transport
    assert (planned.required, planned.direction, planned.backend) == ("tcp", "push", "ucx")
