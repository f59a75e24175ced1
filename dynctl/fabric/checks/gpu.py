"""How a NIC reaches GPU memory: nvidia_peermem, dma-buf, gdrcopy; and which GPUs a process sees. Pure."""

from __future__ import annotations

import re

from dynctl.fabric.checks.case import Case, Finding, Subject, because, ok, skip
from dynctl.fabric.checks.values import Observed

LEAST_KERNEL = (5, 12)
LEAST_DRIVER = 515
"""The first driver with dma-buf export: that of CUDA 11.7."""


def judge_dmabuf(case: Case, _: Subject) -> Finding:
    """dmabuf: kernel, driver and open kernel module together let a NIC map GPU memory without further modules."""
    reason = _skip_reason(case)
    if reason:
        return skip(reason)
    host = case.observed.host
    kernel, driver, opened = _kernel(host.kernel.text), _driver(host.nvidia.text), _open(host.nvidia.text)
    shown = f"kernel {host.kernel.shown()}, driver {driver or 'not known'}, {'open' if opened else 'closed'} module"
    wanted = "kernel >= 5.12, driver >= 515, open kernel module"
    if host.nvidia.text is None:
        return skip(f"the driver's version can't be read: {host.nvidia.error}")
    problem = _dmabuf_problem(case.observed)
    if problem is None:
        return ok(shown, wanted)
    if host.peermem:
        return skip("not needed: a peer memory module is loaded", shown)
    if not opened or kernel is None:
        return because("gdr")
    fix = "a newer kernel and the open driver (nvidia-open >= 515), or modprobe nvidia_peermem"
    return Finding(case.grade(), shown, wanted, problem, fix)


def judge_gdr(case: Case, _: Subject) -> Finding:
    """gdr: a module that lets NICs reach GPU memory, where dma-buf does not."""
    reason = _skip_reason(case)
    if reason:
        return skip(reason)
    host, setting = case.observed.host, case.need.setting("UCX_IB_GPU_DIRECT_RDMA")
    if (setting or "").lower() in ("n", "no", "off", "0"):
        cause = "UCX is told not to use GPUDirect: KV is copied through host memory"
        fix = "remove UCX_IB_GPU_DIRECT_RDMA from transport.env"
        return Finding(case.grade(), f"UCX_IB_GPU_DIRECT_RDMA={setting}", "try or yes", cause, fix)
    if host.peermem:
        return ok(f"/{host.peermem}", "a peer memory module, or dma-buf")
    if host.nvidia.text is not None and _dmabuf_problem(case.observed) is None:
        return skip("not needed: dma-buf", "no peer memory module")
    cause = "neither a peer memory module nor dma-buf: NICs can't reach GPU memory"
    fix = "modprobe nvidia_peermem"
    return Finding(case.grade(), "no peer memory module", "a peer memory module, or dma-buf", cause, fix)


def judge_gdrcopy(case: Case, _: Subject) -> Finding:
    """gdrcopy: a fact; NIXL's own UCX has no gdrcopy."""
    reason = _skip_reason(case)
    if reason:
        return skip(reason)
    error = case.observed.host.gdrdrv
    return ok("/dev/gdrdrv opens") if error is None else skip("gdrcopy speeds up small copies only", f"gdrdrv: {error}")


def judge_cvd(case: Case, subject: Subject) -> Finding:
    """cvd: with different GPUs in one node CUDA's own order is not NVML's."""
    worker = subject.worker
    if worker is None or len(case.observed.gpus) < 2:
        return skip("fewer than two GPUs")
    visible, order = worker.env.get("CUDA_VISIBLE_DEVICES"), worker.env.get("CUDA_DEVICE_ORDER")
    shown = f"CUDA_VISIBLE_DEVICES={visible or 'unset'}, CUDA_DEVICE_ORDER={order or 'unset'}"
    kinds = {case.observed.pci[gpu].device for gpu in case.observed.gpus if gpu in case.observed.pci}
    by_uuid = bool(visible) and all(part.strip().startswith(("GPU-", "MIG-")) for part in (visible or "").split(","))
    if len(kinds) < 2 or by_uuid or order == "PCI_BUS_ID":
        return ok(shown, "PCI_BUS_ID, UUIDs, or GPUs of one kind")
    cause = "GPUs of several kinds: CUDA numbers them by speed, NVML by bus"
    return Finding(
        "warn", shown, "CUDA_DEVICE_ORDER=PCI_BUS_ID", cause, "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or pin UUIDs"
    )


def _skip_reason(case: Case) -> str | None:
    if not case.need.has_gpu:
        return "no GPU: KV is in host memory"
    return None if case.observed.devices else "no RDMA device"


def _dmabuf_problem(observed: Observed) -> str | None:
    """Why dma-buf can't be used; None: it can."""
    host = observed.host
    kernel, driver = _kernel(host.kernel.text), _driver(host.nvidia.text)
    if kernel is None or kernel < LEAST_KERNEL:
        return "the kernel is older than 5.12: no dma-buf for RDMA"
    if driver is None or driver < LEAST_DRIVER:
        return "the GPU driver is older than 515 (CUDA 11.7): no dma-buf"
    return None if _open(host.nvidia.text) else "the GPU driver's kernel module is the closed one: no dma-buf"


def _kernel(text: str | None) -> tuple[int, int] | None:
    """`5.15.0-105-generic` -> (5, 15)"""
    found = re.match(r"([0-9]{1,3})\.([0-9]{1,4})", text or "")
    return (int(found[1]), int(found[2])) if found else None


def _driver(text: str | None) -> int | None:
    """`NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  ...` -> 550"""
    found = re.search(r"\s([0-9]{3})\.[0-9]{1,4}(?:\.[0-9]{1,4})?\s", f"{text or ''} ")
    return int(found[1]) if found else None


def _open(text: str | None) -> bool:
    return "Open Kernel Module" in (text or "")
