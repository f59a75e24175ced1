"""Watches the child processes without which an engine can't serve, though its server goes on answering."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

import psutil

from dynctl.runtime.managed import Managed


class VitalChildren:
    """Calls `on_end` with `VLLM::EngineCore (pid 4121)` at the moment when such a child ends."""

    def __init__(self, on_end: Callable[[str], None]) -> None:
        self._on_end = on_end
        self._descriptors: set[int] = set()

    async def watch(self, process: Managed) -> None:
        """Watches those that the process has now, instead of any before. No polling: one pidfd for each."""
        self.close()
        exited = process.exited
        for pid, title in await asyncio.to_thread(_vital, process) if process.spec.vital else ():
            if process.exited is exited and not exited.is_set():
                self._add(pid, f"{title} (pid {pid})")

    def close(self) -> None:
        """Watches nothing any more."""
        for descriptor in self._descriptors:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        self._descriptors.clear()

    def _add(self, pid: int, child: str) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return self._on_end(child)
        except OSError:
            return  # no descriptor is left: health checks notice it, later
        self._descriptors.add(descriptor)
        asyncio.get_running_loop().add_reader(descriptor, self._ended, descriptor, child)

    def _ended(self, descriptor: int, child: str) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._descriptors.discard(descriptor)
        self._on_end(child)


def _vital(process: Managed) -> list[tuple[int, str]]:
    """Pid and title of each. Reads all of /proc."""
    found = []
    for member in process.processes()[1:]:
        with contextlib.suppress(psutil.Error):
            if (title := member.name()).startswith(process.spec.vital):
                found.append((member.pid, title))
    return found
