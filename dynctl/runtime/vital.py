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

    def watch(self, process: Managed) -> None:
        """Watches those that the process has now, instead of any before. No polling: one pidfd for each."""
        self.close()
        for member in process.processes()[1:] if process.spec.vital else ():
            with contextlib.suppress(psutil.Error, OSError):
                if (title := member.name()).startswith(process.spec.vital):
                    self._add(member, title)

    def close(self) -> None:
        """Watches nothing any more."""
        for descriptor in self._descriptors:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        self._descriptors.clear()

    def _add(self, member: psutil.Process, title: str) -> None:
        descriptor = os.pidfd_open(member.pid)
        self._descriptors.add(descriptor)
        asyncio.get_running_loop().add_reader(descriptor, self._ended, descriptor, f"{title} (pid {member.pid})")

    def _ended(self, descriptor: int, child: str) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._descriptors.discard(descriptor)
        self._on_end(child)
