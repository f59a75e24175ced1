"""Reads on in the logs of all processes: often in their start, and seldom once they serve."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from dynctl.runtime.beat import next_beat
from dynctl.runtime.managed import Managed

START_S = 0.1
RESTART_S = 0.5
SERVING_S = 2.0
"""Of a process that serves little is to be heard, and with many of them each look counts."""


class Reading:
    """`ready`: whether every gate of the run was open once."""

    def __init__(self, processes: Mapping[str, Managed], ready: Callable[[], bool]) -> None:
        self._processes, self._ready = processes, ready

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        all_read_at = float("-inf")
        while True:
            every = not self._ready() or loop.time() - all_read_at >= SERVING_S
            for process in self._processes.values():
                if every or process.state != "ready":
                    process.tail.poll()
            if every:
                all_read_at = loop.time()
            await next_beat(RESTART_S if self._ready() else START_S)
