"""The supervisor's process: from the lock and the socket that it is handed to its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import IO

from dynctl.runtime.reaper import adopt_orphans
from dynctl.runtime.supervisor import Supervisor
from dynctl.store.run import RunStore


def main(name: str, listener: socket.socket, lock: IO[bytes], *, adopting: bool = False) -> int:
    """Runs the supervisor of that run; `adopting`: its processes run already.

    `lock` stays open, and so held, until the process ends.
    """
    adopt_orphans()
    path = listener.getsockname()
    with lock, contextlib.closing(listener):
        try:
            return asyncio.run(_run(name, listener, adopting))
        finally:
            # while the lock is held: a later run's socket has the same name
            with contextlib.suppress(OSError):
                os.unlink(path)


async def _run(name: str, listener: socket.socket, adopting: bool) -> int:
    return await Supervisor(RunStore(name)).run(listener, adopting=adopting)
