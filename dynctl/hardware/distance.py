"""PCIe distances between GPUs and NICs, from their paths below /sys/devices or from a matrix. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dynctl.hardware.values import Distance, Gpu, Nic


def nic_distance(gpu: Gpu, nic: Nic) -> Distance:
    """Distance of a GPU and a NIC: what a matrix said, else from their PCI paths, else from their NUMA nodes."""
    if gpu.nic_distances is not None and nic.name in gpu.nic_distances:
        return gpu.nic_distances[nic.name]
    return pci_distance(gpu.pci_path, nic.pci_path, gpu.numa, nic.numa)


def gpu_distance(a: Gpu, b: Gpu) -> Distance | None:
    """PCIe distance of two GPUs, NVLink aside; None where it is not known."""
    if a.gpu_distances is not None and b.index in a.gpu_distances:
        return a.gpu_distances[b.index]
    if a.pci_path and b.pci_path:
        return pci_distance(a.pci_path, b.pci_path, a.numa, b.numa)
    return None


def pci_distance(a: Sequence[str], b: Sequence[str], numa_a: int | None, numa_b: int | None) -> Distance:
    """Distance of two devices from their paths, `("pci0000:15", "0000:15:01.0", ..., "0000:18:00.0")`.

    Different root complexes: NODE on one NUMA node, else SYS. Only the root complex in common: PHB. Otherwise the
    longer rest below the common bridge decides: at most two components (one switch) are PIX, more are PXB.
    """
    common = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        common += 1
    if common == 0:
        same = numa_a is not None and numa_a >= 0 and numa_a == numa_b
        return "NODE" if same else "SYS"
    if common == 1:
        return "PHB"
    return "PIX" if max(len(a), len(b)) - common <= 2 else "PXB"
