"""The memory that a probe agent moves: of the host or of a GPU, filled with a pattern that tells who filled it.

Beside the agent's script and as standalone as it: the standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
from collections.abc import Iterator
from typing import Any

BLOCK = 1 << 20


class Refusal(Exception):
    """A request that failed, with its kind."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class HostMemory:
    """Anonymous memory of this process."""

    nixl, device = "DRAM", 0

    def __init__(self, size: int) -> None:
        self.size = size
        self._map = mmap.mmap(-1, size)
        with contextlib.suppress(AttributeError, OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)  # as numpy and most allocators of large memory do
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def fill(self, name: str, size: int) -> None:
        """Writes the pattern of that name: once, then copies of copies, then the blocks' numbers."""
        ctypes.memmove(self.address, pattern(name), min(BLOCK, size))
        done = BLOCK
        while done < size:
            step = min(done, size - done)
            ctypes.memmove(self.address + done, self.address, step)
            done += step
        for at in range(0, size - 8, BLOCK):
            ctypes.memmove(self.address + at, number(at), 8)

    def first_difference(self, name: str, size: int) -> int | None:
        """Where the memory is not that pattern; None: it is."""
        compare = ctypes.CDLL(None).memcmp
        compare.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        for at, data in blocks(name, size):
            if compare(self.address + at, data, len(data)):
                return at
        return None

    def clear(self, size: int) -> None:
        ctypes.memset(self.address, 0, size)


class CudaMemory:
    """Memory of the first GPU that CUDA_VISIBLE_DEVICES shows, by the driver's own library."""

    nixl, device = "VRAM", 0

    def __init__(self, size: int) -> None:
        self.size = size
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise Refusal("memory", f"the NVIDIA driver's library can't be loaded: {error}") from error
        device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
        self._do("cuInit", 0)
        self._do("cuDeviceGet", ctypes.byref(device), 0)
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._do("cuCtxSetCurrent", context)
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        self.address = int(address.value)

    def fill(self, name: str, size: int) -> None:
        """Writes the pattern of that name."""
        for at, data in blocks(name, size):
            self._do("cuMemcpyHtoD_v2", ctypes.c_uint64(self.address + at), data, ctypes.c_size_t(len(data)))

    def first_difference(self, name: str, size: int) -> int | None:
        """Where the memory is not that pattern; None: it is."""
        seen = ctypes.create_string_buffer(BLOCK)
        for at, data in blocks(name, size):
            self._do("cuMemcpyDtoH_v2", seen, ctypes.c_uint64(self.address + at), ctypes.c_size_t(len(data)))
            if seen.raw[: len(data)] != data:
                return at
        return None

    def clear(self, size: int) -> None:
        self._do("cuMemsetD8_v2", ctypes.c_uint64(self.address), ctypes.c_ubyte(0), ctypes.c_size_t(size))
        self._do("cuCtxSynchronize")

    def _do(self, name: str, *arguments: Any) -> None:
        code = getattr(self._cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorName(code, ctypes.byref(text))
            raise Refusal("memory", f"{name}: {(text.value or str(code).encode()).decode()}")


def pattern(name: str) -> bytes:
    """The block that an agent of that name fills its memory with."""
    return hashlib.shake_128(name.encode()).digest(BLOCK)


def number(at: int) -> bytes:
    """What stands at the beginning of the block at that offset."""
    return (at // BLOCK).to_bytes(8, "little")


def blocks(name: str, size: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of every block: the pattern, its first bytes the block's number, so that no two are equal."""
    block = bytearray(pattern(name))
    for at in range(0, size, BLOCK):
        if size - at > 8:
            block[:8] = number(at)
        yield at, bytes(block if size - at >= BLOCK else block[: size - at])
