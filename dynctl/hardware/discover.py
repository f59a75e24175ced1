"""Looks up what this machine has: NVML, sysfs, the scheduler's affinity mask, and the rules UCX applies to CMA."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path

from dynctl.hardware import nvml
from dynctl.hardware.values import Cma, Hardware, Nic, NicPort

CAP_SYS_PTRACE = 19
PTRACE_SCOPE = "proc/sys/kernel/yama/ptrace_scope"


def discover(root: Path = Path("/")) -> Hardware:
    """The machine as it is now. Never raises: what can't be read is absent. Files are read below `root`."""
    gpus = nvml.discover() if nvml.has_driver(root) else nvml.NvmlView()
    return Hardware(
        hostname=socket.gethostname(),
        gpus=gpus.gpus,
        nics=rdma_devices(root),
        cores=tuple(sorted(os.sched_getaffinity(0))),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cma=cma(root),
        driver=gpus.driver,
        cuda=gpus.cuda,
    )


def rdma_devices(root: Path) -> tuple[Nic, ...]:
    """RDMA devices of sysfs, with the ports that can carry traffic."""
    base = root / "sys/class/infiniband"
    if not base.is_dir():
        return ()
    return tuple(_nic(path) for path in sorted(base.iterdir(), key=lambda p: _natural(p.name)))


def cma(root: Path) -> Cma:
    """Whether UCX may use CMA here: its own two tests (uct/sm/scopy/cma/cma_md.c: self-write, then Yama's scope)."""
    if not _can_write_own_memory():
        return Cma(allowed=False, reason="process_vm_writev is refused (seccomp or kernel)")
    scope = _read(root / PTRACE_SCOPE)
    if scope is None:
        return Cma(allowed=True, reason="no Yama: any process of this user may be attached")
    if scope in {"0", "1"}:
        return Cma(allowed=True, reason=f"Yama ptrace_scope is {scope}")
    if scope == "2" and _capability(root, CAP_SYS_PTRACE):
        return Cma(allowed=True, reason="Yama ptrace_scope is 2 and this process has CAP_SYS_PTRACE")
    return Cma(allowed=False, reason=f"Yama ptrace_scope is {scope}")


def _nic(path: Path) -> Nic:
    ports_dir = path / "ports"
    ports = sorted(p.name for p in ports_dir.iterdir()) if ports_dir.is_dir() else []
    active = tuple(_port(ports_dir / port) for port in ports if port.isdigit())
    numa = _read(path / "device/numa_node")
    return Nic(name=path.name, numa=int(numa) if numa and numa.isdecimal() else None, ports=active)


def _port(path: Path) -> NicPort:
    state, physical = _read(path / "state"), _read(path / "phys_state")
    return NicPort(number=int(path.name), state=_word(state), phys_state=_word(physical))


def _word(text: str | None) -> str | None:
    """`4: ACTIVE` -> `ACTIVE`."""
    return text.partition(":")[2].strip() or text if text else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _natural(name: str) -> tuple[str, int]:
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or -1)


def _capability(root: Path, bit: int) -> bool:
    for line in (_read(root / "proc/self/status") or "").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> bit & 1)
    return False


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _can_write_own_memory() -> bool:
    source, target = ctypes.c_uint64(7), ctypes.c_uint64(0)
    local = _Iovec(ctypes.cast(ctypes.byref(source), ctypes.c_void_p), 8)
    remote = _Iovec(ctypes.cast(ctypes.byref(target), ctypes.c_void_p), 8)
    try:
        call = ctypes.CDLL(None, use_errno=True).process_vm_writev
    except (OSError, AttributeError):
        return False
    call.restype = ctypes.c_ssize_t
    written = call(os.getpid(), ctypes.byref(local), ctypes.c_ulong(1), ctypes.byref(remote), ctypes.c_ulong(1), 0)
    return written == 8 and target.value == 7
