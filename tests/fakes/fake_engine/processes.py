"""The processes behind the server: an engine core and a worker below it, named and related as vLLM's are.

They do nothing but exist. A SIGKILL of the server leaves them, in the session they were started in, holding the side
channel's port; SIGTERM of the core ends both; the end of the core ends the worker.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import secrets
import signal
from typing import NoReturn

import msgspec

CORE_TITLE, WORKER_TITLE = "VLLM::EngineCore", "VLLM::Worker"
_PR_SET_NAME = 15


class Children(msgspec.Struct, frozen=True):
    """Pids of the engine core (a child) and the worker (its child)."""

    core: int
    worker: int

    def kill(self) -> None:
        """End both now, as vLLM's own shutdown does."""
        for pid in (self.core, self.worker):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def start_children(server_only: list[int], core_only: list[int], *, segment: bool = False) -> Children:
    """Fork core and worker; call before there are threads or an event loop.

    `server_only` are file descriptors that only the server keeps (its HTTP port), `core_only` those that the core keeps
    as well, but not the worker (the side channel's port). `segment`: the worker makes shared memory, and never removes
    it.
    """
    reader, writer = os.pipe()
    core = os.fork()
    if core == 0:
        for fd in (reader, *server_only):
            os.close(fd)
        _run_core(writer, core_only, segment)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        worker = int(pipe.readline() or b"0")
    return Children(core, worker)


def _run_core(writer: int, core_only: list[int], segment: bool) -> NoReturn:
    alive, held = os.pipe()  # the worker reads its end from it: EOF when the core is gone
    worker = os.fork()
    if worker == 0:
        for fd in (held, writer, *core_only):
            os.close(fd)
        _run_worker(alive, segment)
    os.close(alive)
    set_title(CORE_TITLE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.write(writer, f"{worker}\n".encode())
    os.close(writer)
    while True:
        signal.pause()


def _run_worker(alive: int, segment: bool) -> NoReturn:
    set_title(WORKER_TITLE)
    held = map_segment() if segment else None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.read(alive, 1)
    del held
    os._exit(0)


def map_segment() -> mmap.mmap:
    """As Python's multiprocessing does it."""
    with open(f"/dev/shm/psm_fake_{secrets.token_hex(4)}", "xb+") as file:  # noqa: S108
        file.truncate(4096)
        return mmap.mmap(file.fileno(), 4096)


def set_title(title: str) -> None:
    """Rename this process in `ps` and `/proc`: the kernel's short name, and the arguments in place.

    As setproctitle does, it wipes the environment that `/proc` shows, unless SPT_NOENV is set.
    """
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_NAME, title.encode()[:15], 0, 0, 0)
    with open("/proc/self/stat", "rb") as stat:
        fields = stat.read().rpartition(b")")[2].split()
    start, end, env_start, env_end = map(int, fields[45:49])  # fields 48 to 51 of proc(5)
    ctypes.memset(start, 0, end - start)
    if "SPT_NOENV" not in os.environ:
        ctypes.memset(env_start, 0, env_end - env_start)
    ctypes.memmove(start, title.encode(), min(len(title), end - start - 1))
