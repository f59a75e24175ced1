"""Listens to the engines' KV cache events: one ZeroMQ subscription for each worker, on its unix socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from dynctl.environ import SOCKETS_VARIABLE
from dynctl.errors import UsageError
from dynctl.frontend.kv_index import KvIndex, WorkerBlocks


def sockets_directory() -> Path:
    """The run's directory for unix sockets. Raises UsageError."""
    directory = os.environ.get(SOCKETS_VARIABLE)
    if not directory:
        raise UsageError("kv-aware routing hears of no engine's cache", fix="give --kv-events DIRECTORY")
    return Path(directory)


class KvEvents:
    """Follows the workers it is told of until `close`. `directory` holds a socket for each, named `kv-ID`.

    A socket that is not there yet, or that an engine makes anew, is waited for.
    """

    def __init__(self, directory: Path, index: KvIndex, log: Callable[[str], None]) -> None:
        import zmq.asyncio

        self._directory = directory
        self._index = index
        self._log = log
        self._context = zmq.asyncio.Context()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, worker_ids: Iterable[str]) -> None:
        """These are the workers now."""
        wanted = set(worker_ids)
        for gone in self._tasks.keys() - wanted:
            self._tasks.pop(gone).cancel()
        for worker_id in wanted - self._tasks.keys():
            listening = self._listen(worker_id, self._index.of(worker_id))
            self._tasks[worker_id] = asyncio.get_running_loop().create_task(listening)

    async def close(self) -> None:
        """Listen to nobody."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._context.destroy(linger=0)

    async def _listen(self, worker_id: str, blocks: WorkerBlocks) -> None:
        import zmq

        socket = self._context.socket(zmq.SUB)
        try:
            socket.connect(f"ipc://{self._directory / f'kv-{worker_id}'}")
            socket.subscribe(b"")
            while True:
                frames = await socket.recv_multipart()
                try:
                    _, sequence, payload = frames
                    blocks.take(int.from_bytes(sequence, "big"), payload)
                except (ValueError, msgspec.DecodeError) as error:
                    blocks.clear()
                    self._log(f"KV events of {worker_id}: one was not understood: {error}")
        finally:
            socket.close(linger=0)
