"""One fault each in a healthy node: the row of that id is red and no other; what depends on it waits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from dynctl.fabric.checks.judge import RULES, judge
from dynctl.fabric.checks.observe import observe
from dynctl.fabric.checks.values import Need, Since
from dynctl.fabric.report import Check
from tests.unit.fabric.trees import Tree, config, link, write
from tests.unit.fabric.trees import need as usual

ZERO = ":".join(["0000"] * 8)
ETHERNET, INFINIBAND = "Ethernet", "InfiniBand"
IPV4 = "::ffff:10.0.0.1"
need = partial(usual, 4)
FIRST, *OTHERS = need().workers
Make = Callable[[Tree], object]


class Fault(NamedTuple):
    """`waits`: rows that must be skipped with `because <id>`; `need`: another plan; `grown`: counters of mlx5_0."""

    name: str
    id: str
    status: str
    target: str
    make: Make = lambda tree: None
    waits: tuple[str, ...] = ()
    on: str = ETHERNET
    need: Callable[[], Need] = need
    grown: dict[str, int] | None = None


def env(**settings: str) -> Callable[[], Need]:
    """The usual plan, the first worker with other UCX settings."""
    return lambda: need(workers=(msgspec.structs.replace(FIRST, env={**FIRST.env, **settings}), *OTHERS))


def nics(*names: str) -> Callable[[], Need]:
    """The usual plan, the first worker with these NICs."""
    return lambda: need(workers=(msgspec.structs.replace(FIRST, nics=names, env={}), *OTHERS))


def at(path: str, text: str) -> Make:
    """Another text in a file of the first port (`gids/...`), or of the tree."""
    return lambda tree: write((tree.port() if path.startswith("gids/") else tree.root) / path, text)


def port(**files: str) -> Make:
    return lambda tree: [write(tree.port() / name, text) for name, text in files.items()]


def net(**files: str) -> Make:
    return lambda tree: [write(tree.net() / name, text) for name, text in files.items()]


def pci(address: str, **files: str | bytes) -> Make:
    return lambda tree: [write(tree.pci(address) / name, text) for name, text in files.items()]


def gids(*addresses: str, types: tuple[str, ...] = ("IB/RoCE v1", "RoCE v2")) -> Make:
    return lambda tree: tree.gids(0, *addresses, types=types)


def gone(path: str) -> Make:
    return lambda tree: (tree.root / path).unlink()


def both(*makes: Make) -> Make:
    return lambda tree: [make(tree) for make in makes]


def no_driver(tree: Tree) -> None:
    tree.nic().rename(tree.root / "gone")


def other_netns(tree: Tree) -> None:
    tree.gids(0)
    link(tree.root / "proc/self/ns/net", "net:[4026532999]")


def closed_driver(tree: Tree) -> None:
    gone("sys/module/nvidia_peermem/version")(tree)
    tree.driver("x86_64 Kernel Module", "535.129.03")


def old_kernel(tree: Tree) -> None:
    gone("sys/module/nvidia_peermem/version")(tree)
    write(tree.root / "proc/sys/kernel/osrelease", "5.4.0-182-generic")


def no_ecn(tree: Tree) -> None:
    write(tree.net() / "qos/pfc", "0 0 0 0 0 0 0 0")
    for point in ("roce_np", "roce_rp"):
        write(tree.net() / f"ecn/{point}/enable/3", 0)


PORT, DEVICE, HOST = "mlx5_0:1", "mlx5_0", "host"
NIC, GPU = Tree.nic_address(0), Tree.gpu_address(0)
AFTER_STATE = ("rate", "ctr", "gid", "gid0", "gidsel", "err", "cc", "hwerr")
AFTER_NDEV = ("state", "mtu", "qos", *AFTER_STATE)
AFTER_DEV = ("uverbs", "ndev", "pcie", "mrrs", *AFTER_NDEV)
NEEDED = (
    "dev",
    "uverbs",
    "state",
    "gid",
    "gid0",
    "gidsel",
    "ndev",
    "err",
    "hwerr",
    "gdr",
    "dmabuf",
    "memlock",
    "pcie",
    "ctr",
)
MOUNT = "shm /dev/shm tmpfs rw,nosuid,size=65536k,inode64 0 0"
FAULTS = (
    Fault("driver not loaded", "dev", "fail", NIC, no_driver, AFTER_DEV, need=lambda: need(workers=())),
    Fault("no uverbs module", "uverbs", "fail", DEVICE, gone("sys/class/infiniband_verbs/uverbs0/ibdev")),
    Fault("no character device", "uverbs", "fail", DEVICE, gone("dev/infiniband/uverbs0")),
    Fault("down", "state", "fail", PORT, port(state="1: DOWN"), AFTER_STATE),
    Fault("no subnet manager", "state", "fail", PORT, port(state="2: INIT"), AFTER_STATE, INFINIBAND),
    Fault("no cable", "state", "fail", PORT, port(phys_state="2: Polling"), AFTER_STATE),
    Fault("carrier lost", "state", "fail", PORT, both(port(state="1: DOWN"), net(operstate="down")), AFTER_STATE),
    Fault("slower than its peers", "rate", "warn", PORT, port(rate="200 Gb/sec (2X NDR)")),
    Fault("InfiniBand among RoCE", "rate", "warn", PORT, port(link_layer="InfiniBand")),
    Fault("no address", "gid", "fail", PORT, gids(), ("gid0", "gidsel")),
    Fault("version 1 only", "gid", "fail", PORT, gids(IPV4, types=("IB/RoCE v1",)), ("gid0", "gidsel")),
    Fault("index 0 is empty", "gid0", "fail", PORT, at("gids/0", ZERO)),
    Fault("no interface half", "gid0", "fail", PORT, at("gids/0", "fe80::"), on=INFINIBAND),
    Fault("link-local only", "gidsel", "warn", PORT, gids("fe80::a288:c2ff:feab:1")),
    Fault("no such index", "gidsel", "fail", PORT, gids(IPV4), need=env(UCX_IB_GID_INDEX="3")),
    Fault("small MTU", "mtu", "warn", PORT, net(mtu="1500")),
    Fault("not up", "ndev", "fail", DEVICE, both(port(state="1: DOWN"), net(flags="0x1002")), AFTER_NDEV),
    Fault("no carrier", "ndev", "fail", DEVICE, net(operstate="down"), ("state",)),
    Fault("bad cable", "err", "warn", PORT, grown={"symbol_error": 4}),
    Fault("link flaps", "err", "fail", PORT, grown={"link_downed": 1}),
    Fault("timeouts", "hwerr", "warn", PORT, grown={"local_ack_timeout_err": 7}),
    Fault("no answer", "hwerr", "fail", PORT, grown={"req_transport_retries_exceeded": 1}),
    Fault("loss, no ECN", "cc", "warn", PORT, waits=("hwerr",), grown={"out_of_sequence": 9}),
    Fault("loss and ECN", "hwerr", "warn", PORT, grown={"out_of_sequence": 9, "np_cnp_sent": 2}),
    Fault("no way to GPU memory", "gdr", "fail", HOST, closed_driver, ("dmabuf",)),
    Fault("GPUDirect switched off", "gdr", "fail", HOST, need=env(UCX_IB_GPU_DIRECT_RDMA="no")),
    Fault("kernel without dma-buf", "dmabuf", "fail", HOST, old_kernel, ("gdr",)),
    Fault("memlock", "memlock", "fail", HOST, lambda tree: tree.limits("8388608", "1048576")),
    Fault("nofile", "nofile", "warn", HOST, lambda tree: tree.limits("unlimited", "1024")),
    Fault("NIC slow", "pcie", "fail", DEVICE, pci(NIC, current_link_speed="16.0 GT/s PCIe")),
    Fault("NIC narrow", "pcie", "fail", DEVICE, pci(NIC, current_link_width="8")),
    Fault("GPU narrow", "pcie", "warn", GPU, pci(GPU, current_link_width="8")),
    Fault("read request", "mrrs", "warn", DEVICE, pci(NIC, config=config(read_request_bytes=512))),
    Fault("ACS", "acs", "warn", HOST, lambda tree: write(tree.pci(NIC).parent / "config", config(acs=0x1D))),
    Fault("IOMMU", "iommu", "warn", HOST, at(f"sys/kernel/iommu_groups/{NIC}/type", "DMA-FQ")),
    Fault("no relaxed ordering", "ro", "warn", HOST, need=env(UCX_IB_PCI_RELAXED_ORDERING="off")),
    Fault("a NIC on the other socket", "topo", "fail", "w-0", need=nics("mlx5_3"), waits=("numa",)),
    Fault("a NIC of another switch", "topo", "warn", "w-0", need=nics("mlx5_1"), waits=("numa",)),
    Fault("NUMA", "numa", "warn", "w-0", pci(NIC, numa_node="1")),
    Fault("no PFC, no ECN", "qos", "warn", PORT, no_ecn),
    Fault("small /dev/shm", "shm", "warn", HOST, at("proc/self/mounts", MOUNT)),
    Fault("no cuda", "tls", "fail", "w-0", need=env(UCX_TLS="rc")),
    Fault("only tcp", "tls", "fail", "w-0", need=env(UCX_TLS="tcp,cuda_copy")),
    Fault("silent fallback", "tls", "warn", "w-0", need=env(UCX_TLS="rc,tcp,cuda")),
    Fault("unknown device", "netdev", "fail", "w-0", need=env(UCX_NET_DEVICES="mlx5_9:1")),
    Fault("HCA without port", "netdev", "fail", "w-0", need=env(UCX_NET_DEVICES="mlx5_0")),
    Fault("mixed devices", "netdev", "warn", "w-0", need=env(UCX_NET_DEVICES="mlx5_0:1,eth0")),
    Fault("mixed GPUs", "cvd", "warn", "w-0", pci(GPU, device="0x20b5"), need=env(CUDA_VISIBLE_DEVICES="0")),
    Fault("overlay network", "ctr", "fail", PORT, other_netns, ("gid", "gid0", "gidsel")),
    Fault("Yama", "ptrace", "fail", HOST, at("proc/sys/kernel/yama/ptrace_scope", "3"), need=lambda: Need(path="shm")),
)


def rows_of(fault: Fault, root: Path, **changes: object) -> tuple[Check, ...]:
    """The rows of a small node with that fault; `changes`: to what the plan needs."""
    tree = Tree(root, fault.on, nics=4)
    fault.make(tree)
    before = observe(root)
    if fault.grown:
        tree.counters(0, **fault.grown)
    plan = msgspec.structs.replace(fault.need(), **changes)
    return judge(observe(root) if fault.grown else before, plan, Since(earlier=before, seconds=10))


def red(rows: tuple[Check, ...]) -> list[tuple[str, str, str]]:
    return [(row.id, row.target, row.status) for row in rows if row.status in ("warn", "fail")]


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{fault.id}: {fault.name}" for fault in FAULTS])
def test_one_fault_turns_one_row_red(tmp_path: Path, fault: Fault) -> None:
    rows = rows_of(fault, tmp_path)
    assert red(rows) == [(fault.id, fault.target, fault.status)]
    row = next(row for row in rows if row.status in ("warn", "fail"))
    assert row.observed
    assert row.expected
    assert row.cause
    assert row.fix
    waiting = {row.id for row in rows if row.status == "skip" and row.cause == f"because {fault.id}"}
    assert waiting >= set(fault.waits)


def test_every_rule_can_turn_red() -> None:
    assert {fault.id for fault in FAULTS} >= {rule.id for rule in RULES} - {"gdrcopy"}  # gdrcopy is a fact


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.status == "fail" and f.id in NEEDED], ids=lambda f: f.name)
def test_what_rdma_needs_only_warns_where_rdma_is_not_required(tmp_path: Path, fault: Fault) -> None:
    rows = rows_of(fault, tmp_path, path="nvlink")
    assert red(rows) == [(fault.id, fault.target, "warn")]


def test_a_device_that_the_plan_leaves_out_only_warns(tmp_path: Path) -> None:
    write(Tree(tmp_path, nics=4).port() / "state", "1: DOWN")
    assert red(judge(observe(tmp_path), need(workers=tuple(OTHERS)))) == [("state", PORT, "warn")]


def test_a_nic_of_the_plan_that_is_not_here(tmp_path: Path) -> None:
    Tree(tmp_path, nics=4)
    rows = judge(observe(tmp_path), nics("mlx5_77")())
    assert red(rows) == [("dev", "mlx5_77", "fail")]
    assert any(row.target == "mlx5_77" and row.cause == "because dev" for row in rows)
