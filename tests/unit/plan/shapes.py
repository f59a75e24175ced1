"""Shapes of machines, by their PCI trees: what is below which root complex and switch. All invented."""

from __future__ import annotations

from typing import Any

from dynctl.hardware.values import Gpu, Hardware, MigDevice, Nic, NicPort, NumaNode

GIB = 1 << 30


def port(number: int = 1, *, up: bool = True, rate: float = 400.0) -> NicPort:
    """One port."""
    state, physical = ("ACTIVE", "LinkUp") if up else ("DOWN", "Disabled")
    return NicPort(number=number, state=state, phys_state=physical, rate_gigabits_per_s=rate)


def below(root: int, switch: int | None, device: int, tier: int | None = None) -> tuple[str, ...]:
    """The PCI path of a device: right at the root complex, behind a switch, or behind a switch below another."""
    bridges = [f"0000:{root:02x}:01.0"]
    if switch is not None:
        bridges += [f"0000:{root + 1:02x}:00.0", f"0000:{root + 2:02x}:{switch:02x}.0"]
    if tier is not None:
        bridges += [f"0000:{root + 3:02x}:{switch:02x}.{tier}", f"0000:{root + 4:02x}:{tier:02x}.{device % 8}"]
    elif switch is not None:
        bridges[-1] = f"0000:{root + 2:02x}:{device:02x}.0"
        bridges[-2] = f"0000:{root + 1:02x}:00.{switch}"
    return (f"pci0000:{root:02x}", *bridges, f"0000:{root + 5:02x}:{device:02x}.0")


def gpu(index: int, path: tuple[str, ...] = (), numa: int | None = 0, **more: Any) -> Gpu:
    """One GPU; behind NVSwitches unless said otherwise."""
    fields = {"nvswitch_links": 18, "memory_bytes": 141 * GIB, "name": "NVIDIA H200", **more}
    return Gpu(
        index=index, uuid=f"GPU-{index:04d}", pci=path[-1] if path else f"0000:{index:02x}:00.0", pci_path=path,
        numa=numa, **fields,
    )  # fmt: skip


def nic(name: str, path: tuple[str, ...] = (), numa: int | None = 0, **more: Any) -> Nic:
    """One RDMA device with an active port."""
    fields = {"ports": (port(),), "pci": path[-1] if path else "", **more}
    return Nic(name=name, pci_path=path, numa=numa, **fields)


def machine(gpus: list[Gpu], nics: list[Nic], nodes: int = 2, cores: int = 32, **more: Any) -> Hardware:
    """NUMA nodes of so many cores each, numbered one node after the other."""
    return Hardware(
        hostname="m",
        gpus=tuple(gpus),
        nics=tuple(nics),
        numa_nodes=tuple(
            NumaNode(index=node, cores=tuple(range(node * cores, (node + 1) * cores)), memory_bytes=512 * GIB)
            for node in range(nodes)
        ),
        cores=tuple(range(nodes * cores)),
        memory_bytes=nodes * 512 * GIB,
        **more,
    )


ROOTS = (0x10, 0x30, 0x50, 0x70, 0x90, 0xA8, 0xC0, 0xE0)


def _hgx(order: tuple[int, ...] = tuple(range(8)), more: tuple[Nic, ...] = ()) -> Hardware:
    """A switch for each GPU with one NIC beside it; `order`: the number of the NIC beside each GPU."""
    gpus = [gpu(at, below(ROOTS[at], 0, 0), numa=at // 4) for at in range(8)]
    nics = [nic(f"mlx5_{order[at]}", below(ROOTS[at], 0, 1), numa=at // 4) for at in range(8)]
    return machine(gpus, [*sorted(nics, key=lambda one: one.name), *more])


HGX = _hgx()
SHUFFLED = _hgx((5, 0, 7, 2, 1, 6, 3, 4))
"""NIC numbers that do not follow the GPUs'."""

STORAGE = _hgx(
    more=(
        nic("mlx5_8", below(ROOTS[0], 0, 2), use="storage", use_reason="its netdev carries NFS"),
        nic("mlx5_9", below(ROOTS[4], 0, 2), numa=1, use="management", use_reason="25 Gb/s, others 400"),
        nic("mlx5_10", below(ROOTS[1], 0, 2), ports=(port(up=False),)),
    )
)
"""Storage, management and unplugged NICs behind the GPUs' own switches."""

PAIRS = machine(
    [gpu(at, below(ROOTS[at // 2], 0, at % 2), numa=at // 4) for at in range(8)],
    [nic(f"mlx5_{at}", below(ROOTS[at // 2], 0, 4 + at % 2), numa=at // 4) for at in range(8)],
)
"""Two GPUs and two NICs behind each switch."""

FEW = machine(
    [gpu(at, below(ROOTS[at // 2], 0, at % 2), numa=at // 4) for at in range(8)],
    [nic(f"mlx5_{at}", below(ROOTS[at], 0, 4), numa=at // 2) for at in range(4)],
)
"""One NIC for each pair of GPUs."""

BONDS = machine(
    [gpu(at, below(ROOTS[at], 0, 0), numa=at // 2) for at in range(4)],
    [
        nic("mlx5_bond_0", below(ROOTS[0], 0, 1), bond="bond0", ports=(port(up=False),)),
        nic("mlx5_bond_1", below(ROOTS[1], 0, 1), bond="bond1", ports=(port(1, up=False), port(2))),
        nic("mlx5_bond_2", below(ROOTS[2], 0, 1), numa=1, bond="bond2"),
        nic("mlx5_bond_3", below(ROOTS[3], 0, 1), numa=1, bond="bond3", ports=(port(up=False),)),
    ],
)
"""A NIC beside each GPU, two of them with no port up, one with its second port only."""

PXB = machine(
    [gpu(at, below(ROOTS[at // 2], 1, at % 2, tier=at % 2), numa=at // 2) for at in range(4)],
    [nic(f"mlx5_{at}", below(ROOTS[at], 1, 2, tier=2), numa=at) for at in range(2)],
)
"""GPUs and NIC behind different switches of one root port."""

ALL_NODE = machine(
    [gpu(at, below(ROOTS[at], None, 0)) for at in range(4)],
    [nic(f"mlx5_{at}", below(ROOTS[4 + at], None, 0)) for at in range(4)],
    nodes=1,
)
"""One socket, every device at a root complex of its own."""

FLAT = machine(
    [gpu(at, below(ROOTS[at], None, 0), numa=at, nvswitch_links=0, name="L40S", memory_bytes=48 * GIB)
     for at in range(4)],
    [nic("mlx5_0", below(ROOTS[4], None, 0), numa=1), nic("mlx5_1", below(ROOTS[5], None, 0), numa=1)],
    nodes=4, cores=16,
)  # fmt: skip
"""A flat EPYC: four NUMA nodes, a GPU on each, both NICs on node 1, no NVLink."""

NO_NICS = machine([gpu(at, below(ROOTS[at], 0, 0), numa=at // 2, nvswitch_links=0) for at in range(4)], [])

BRIDGED = machine(
    [gpu(at, below(ROOTS[at], None, 0), numa=at // 2, nvswitch_links=0, nvlinks={at ^ 2: 4}) for at in range(4)],
    [nic(f"mlx5_{at}", below(ROOTS[4 + at], None, 0), numa=at) for at in range(2)],
)
"""NVLink bridges between GPUs 0 and 2, 1 and 3, across the sockets."""


def sliced(*, busy: bool = False) -> Hardware:
    """GPU 0 in three MIG slices, GPU 1 whole."""
    slices = tuple(
        MigDevice(index=at, uuid=f"MIG-000{at}", profile="2g.35gb", memory_bytes=80 * GIB) for at in range(3)
    )
    first = gpu(0, below(ROOTS[0], 0, 0), mig_enabled=True, mig=slices)
    return machine(
        [first, gpu(1, below(ROOTS[1], 0, 0), lost="fell off the bus (Xid 79)" if busy else None)],
        [nic("mlx5_0", below(ROOTS[0], 0, 1)), nic("mlx5_1", below(ROOTS[1], 0, 1))],
        nodes=1,
    )
