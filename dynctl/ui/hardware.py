"""A machine as text: GPUs, NICs, NUMA nodes, and the distances between them as `nvidia-smi topo -m` names them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dynctl.hardware.distance import gpu_distance, nic_distance
from dynctl.hardware.values import Gpu, Hardware, Limits, Nic, NicPort, cpu_list, nvlink_width
from dynctl.ui.figures import UNKNOWN, format_bytes

WIDEST_MATRIX = 64
"""Devices that a matrix on a terminal can still be read with."""


def hardware_text(machine: Hardware) -> str:
    """The whole machine. What is not known is a dash."""
    parts = [_head(machine), *_limits(machine)]
    if machine.cma.reason != "not looked up":
        parts.append(f"CMA {'allowed' if machine.cma.allowed else 'refused'} ({machine.cma.reason})")
    if machine.gpus:
        rows = [list(_gpu(gpu, machine)) for gpu in machine.gpus]
        parts += ["", *_table(["GPU", "name", "memory", "NUMA", "PCI", "NVLink"], rows)]
        rows = [[str(gpu.index), gpu.uuid, _holders(gpu, machine)] for gpu in machine.gpus]
        parts += ["", *_table(["GPU", "UUID", "held by"], rows)]
    if machine.nics:
        rows = [list(_nic(nic)) for nic in machine.nics]
        parts += ["", *_table(["NIC", "ports", "NUMA", "PCI", "netdevs", "use"], rows)]
    if machine.numa_nodes:
        rows = [[str(n.index), cpu_list(n.cores) or UNKNOWN, _size(n.memory_bytes)] for n in machine.numa_nodes]
        parts += ["", *_table(["NUMA node", "cores", "memory"], rows)]
    if machine.gpus:
        parts += ["", *_matrix(machine)]
    parts += [f"note: {note}" for note in machine.notes]
    return "\n".join(parts)


def _head(machine: Hardware) -> str:
    known = [
        machine.hostname or machine.source,
        f"{len(machine.gpus)} GPUs",
        f"{len(machine.nics)} NICs",
        f"cores {cpu_list(machine.cores)}" if machine.cores else "cores not known",
    ]
    known += [f"memory {format_bytes(machine.memory_bytes)}"] if machine.memory_bytes else []
    known += [f"driver {machine.driver}, CUDA {machine.cuda or UNKNOWN}"] if machine.driver else []
    return "  ".join(known)


def _limits(machine: Hardware) -> Iterator[str]:
    """What bounds a process here; nothing of a machine that was not looked at."""
    limits = machine.limits
    if limits == Limits():
        return
    locked = "unlimited" if limits.memlock_unlimited else _size(limits.memlock_bytes or 0)
    words = [f"locked memory {locked}", f"open files {limits.nofile or 'unlimited'}"]
    words += [f"shared memory {_size(limits.shm_bytes)}"] if limits.shm_bytes else []
    words += [f"cgroup: {limits.cpu_quota:g} cores' time"] if limits.cpu_quota else []
    words += [f"cgroup: {_size(limits.memory_bytes)} memory"] if limits.memory_bytes else []
    words += [f"container ({limits.container})"] if limits.container else []
    yield "  ".join(words)


def _gpu(gpu: Gpu, machine: Hardware) -> Iterator[str]:
    yield str(gpu.index)
    yield gpu.lost or (f"{gpu.name or UNKNOWN}, {len(gpu.mig)} MIG slices" if gpu.mig else gpu.name or UNKNOWN)
    yield _size(gpu.memory_bytes)
    yield UNKNOWN if gpu.numa is None else str(gpu.numa)
    yield gpu.pci or UNKNOWN
    widths = [nvlink_width(gpu, other) for other in machine.gpus if other.index != gpu.index]
    peers = [width for width in widths if width]
    yield f"{max(peers)} to {len(peers)} peers" if peers else "none"


def _holders(gpu: Gpu, machine: Hardware) -> str:
    of_slices = (holder for slice_ in gpu.mig for holder in slice_.holders)
    told = machine.source in {"discovered", "snapshot"}
    return ", ".join(holder.text() for holder in (*gpu.holders, *of_slices)) or ("nobody" if told else UNKNOWN)


def _nic(nic: Nic) -> Iterator[str]:
    yield nic.name
    yield ", ".join(map(_port, nic.ports)) or "none"
    yield UNKNOWN if nic.numa is None else str(nic.numa)
    yield nic.pci or UNKNOWN
    yield ",".join(nic.netdevs) or UNKNOWN
    yield f"{nic.use}: {nic.use_reason}" if nic.use_reason else nic.use


def _port(port: NicPort) -> str:
    rate = f" {port.rate_gigabits_per_s:g} Gb/s" if port.rate_gigabits_per_s else ""
    return f"{port.number} {port.state or UNKNOWN}{rate}"


def _size(size_bytes: int) -> str:
    return format_bytes(size_bytes) if size_bytes else UNKNOWN


def _matrix(machine: Hardware) -> list[str]:
    devices = len(machine.gpus) + len(machine.nics)
    if devices > WIDEST_MATRIX:
        return [f"distances of {devices} devices are left out here; `--json` has them"]
    header = ["", *(f"GPU{gpu.index}" for gpu in machine.gpus)]
    rows = [[f"GPU{gpu.index}", *(_between(gpu, other) for other in machine.gpus)] for gpu in machine.gpus]
    # NICs below and not beside: eight of each fit a terminal of 80 columns
    rows += [[nic.name, *(nic_distance(gpu, nic) for gpu in machine.gpus)] for nic in machine.nics]
    return _table(header, rows)


def _between(a: Gpu, b: Gpu) -> str:
    if a.index == b.index:
        return "X"
    width = nvlink_width(a, b)
    return f"NV{width}" if width else gpu_distance(a, b) or UNKNOWN


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (header, *rows))
    return [line.rstrip() for line in lines]
