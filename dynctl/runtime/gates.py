"""Gates of start-up: the process lives, answers /health itself, lists the model; and the watch for stalls."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import psutil

from dynctl.errors import ReadyTimeout
from dynctl.runtime.managed import Managed

POLL_S = 0.2
STALL_POLL_S = 1.0
BUSY_SHARE = 0.02
"""CPU use below this share of a core is idling (event loops, heartbeats), not progress."""


async def await_health(process: Managed, http: httpx.AsyncClient) -> None:
    """Returns once the process itself answers its health probe with 200. Waits for ever: deadlines are the caller's."""
    probes = process.spec.probes
    if not (probes.url and probes.health):
        return
    while True:
        if await _status(http, probes.url + probes.health) == 200 and await asyncio.to_thread(listens, process):
            return
        await asyncio.sleep(POLL_S)


async def await_model(process: Managed, http: httpx.AsyncClient, served_name: str) -> None:
    """Returns once the process lists the model."""
    probes = process.spec.probes
    if not (probes.url and probes.models):
        return
    while True:
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            answer = (await http.get(probes.url + probes.models)).json()
            if any(model["id"] == served_name for model in answer["data"]):
                return
        await asyncio.sleep(POLL_S)


def listens(process: Managed) -> bool:
    """Whether the HTTP port is held by this very process's tree: a left-over of another run may answer in its place."""
    port = urlsplit(process.spec.probes.url or "").port
    for member in process.processes():
        with contextlib.suppress(psutil.Error):
            for connection in member.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                    return True
    return False


class StallWatch:
    """Raises ReadyTimeout when a starting process shows no progress for `stall_s` seconds.

    `elsewhere`: a number that changes whenever its parts on other nodes make progress.
    """

    def __init__(self, process: Managed, stall_s: float, elsewhere: Callable[[], int] = lambda: 0) -> None:
        self._process, self._stall_s, self._elsewhere = process, stall_s, elsewhere

    async def run(self) -> None:
        """Watches until cancelled. Progress is log bytes, CPU, I/O or GPU memory of the process's tree."""
        moved_at, before = time.monotonic(), await asyncio.to_thread(self._progress)
        while True:
            await asyncio.sleep(min(STALL_POLL_S, self._stall_s / 4))
            now, after = time.monotonic(), await asyncio.to_thread(self._progress)
            busy_s = after["cpu_s"] - before["cpu_s"]
            elsewhere = any(after[key] != before[key] for key in after if key != "cpu_s")
            if elsewhere or busy_s > BUSY_SHARE * (now - moved_at):
                moved_at, before = now, after
                self._process.progress += 1
            elif now - moved_at > self._stall_s:
                raise self._error()

    def _progress(self) -> dict[str, float]:
        found: dict[str, float] = {"log": self._process.tail.bytes_read, "cpu_s": 0.0, "io": 0.0, "processes": 0.0}
        for member in self._process.processes():
            with contextlib.suppress(psutil.Error):
                times = member.cpu_times()
                found["cpu_s"] += times.user + times.system
                found["processes"] += 1
                io = member.io_counters()
                found["io"] += io.read_bytes + io.write_bytes
        found["parts"] = self._elsewhere()
        found["gpu"] = _gpu_memory(self._process)
        return found

    def _error(self) -> ReadyTimeout:
        process = self._process
        return ReadyTimeout(
            f"{process.id} made no progress for {self._stall_s:g} s ({process.phase or process.state})",
            where=f"process {process.id}",
            why="no log output, CPU time, I/O or GPU memory change in its process tree (ready.stall)",
            fix="read its log below; raise ready.stall if this phase is known to be silent for longer",
            tail=process.last_lines(),
        )


def _gpu_memory(process: Managed) -> float:
    if not process.spec.gpus:
        return 0.0
    from dynctl.hardware.nvml import used_bytes

    return float(used_bytes(process.spec.gpu_uuids))


async def _status(http: httpx.AsyncClient, url: str) -> int:
    try:
        return (await http.get(url)).status_code
    except httpx.HTTPError:
        return 0
