"""Whether UCX may use CMA here, by the rules that UCX itself applies."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from dynctl.hardware import sysfs
from dynctl.hardware.values import Cma

CAP_SYS_PTRACE = 19
PTRACE_SCOPE = "proc/sys/kernel/yama/ptrace_scope"


def cma(root: Path) -> Cma:
    """Whether UCX may use CMA here: its own two tests (uct/sm/scopy/cma/cma_md.c: self-write, then Yama's scope)."""
    if not _can_write_own_memory():
        return Cma(allowed=False, reason="process_vm_writev is refused (seccomp or kernel)")
    scope = sysfs.text(root / PTRACE_SCOPE)
    if scope is None:
        return Cma(allowed=True, reason="no Yama: any process of this user may be attached")
    if scope in {"0", "1"}:
        return Cma(allowed=True, reason=f"Yama ptrace_scope is {scope}")
    if scope == "2" and _capability(root, CAP_SYS_PTRACE):
        return Cma(allowed=True, reason="Yama ptrace_scope is 2 and this process has CAP_SYS_PTRACE")
    return Cma(allowed=False, reason=f"Yama ptrace_scope is {scope}")


def _capability(root: Path, bit: int) -> bool:
    for line in (sysfs.text(root / "proc/self/status") or "").splitlines():
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
