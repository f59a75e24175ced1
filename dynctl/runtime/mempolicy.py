"""The memory policy that a process is started with: Linux keeps it per thread, and fork and exec hand it on."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
from collections.abc import Collection, Iterator

from dynctl.hardware.values import cpu_list

# include/uapi/linux/mempolicy.h
DEFAULT, PREFERRED, PREFERRED_MANY = 0, 1, 5
NODES = 1024
"""The most NUMA nodes that a kernel is built for (NODES_SHIFT 10): reading a policy takes room for all of them."""
_CALLS = {"x86_64": (238, 239), "aarch64": (237, 236)}
"""Numbers of set_mempolicy and get_mempolicy; glibc has no functions for them."""


@contextlib.contextmanager
def preferring(nodes: Collection[int]) -> Iterator[str | None]:
    """What this thread starts within takes its memory from these NUMA nodes while they have any.

    Yields None, or why it does not: containers often refuse the call, and a process is better started without a policy
    than not at all. Other nodes are never forbidden. Afterwards this thread has the policy that it had before.
    """
    if not nodes:
        yield None
        return
    try:
        before = get_policy()
        _prefer(nodes)
    except OSError as error:
        yield _refusal(nodes, error)
        return
    try:
        yield None
    finally:
        set_policy(*before)


def get_policy() -> tuple[int, int]:
    """This thread's policy: its mode, and its nodes as the bits of a number. OSError where it can't be asked."""
    mode, mask = ctypes.c_int(), (ctypes.c_uint64 * (NODES // 64))()
    _call(1, ctypes.byref(mode), mask, NODES + 1, None, 0)
    return mode.value, sum(word << (64 * at) for at, word in enumerate(mask))


def set_policy(mode: int, nodes: int) -> None:
    """Gives this thread a policy; `nodes` as bits. OSError where the kernel refuses it."""
    mask = (ctypes.c_uint64 * (NODES // 64))(*((nodes >> (64 * at)) & (2**64 - 1) for at in range(NODES // 64)))
    # the kernel takes the size for one more than it is
    _call(0, mode, *((mask, NODES + 1) if nodes else (None, 0)))


def _prefer(nodes: Collection[int]) -> None:
    bits = sum(1 << node for node in set(nodes))
    try:
        set_policy(PREFERRED if len(set(nodes)) == 1 else PREFERRED_MANY, bits)
    except OSError as error:
        if error.errno != errno.EINVAL or len(set(nodes)) == 1:
            raise
        set_policy(PREFERRED, 1 << min(nodes))  # before Linux 5.15 one node can be preferred, not several


def _refusal(nodes: Collection[int], error: OSError) -> str:
    named = cpu_list(tuple(nodes))
    if error.errno == errno.EINVAL:
        return f"the kernel refuses to prefer NUMA node {named}: it has no memory, or is not allowed here (cpuset)"
    why = {errno.EPERM: ", as containers without CAP_SYS_NICE do", errno.ENOSYS: ": it has no NUMA support"}
    said = os.strerror(error.errno or 0)
    return f"the kernel refuses a memory policy ({said}){why.get(error.errno or 0, '')}"


def _call(which: int, *arguments: object) -> None:
    numbers = _CALLS.get(platform.machine())
    if numbers is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    if libc.syscall(ctypes.c_long(numbers[which]), *words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
