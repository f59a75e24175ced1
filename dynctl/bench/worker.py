"""A loader process: jobs come in on stdin, progress and results go out on stdout, as frames of msgpack.

It is a process of its own so that drawing, statistics and disk writes never delay a read. It ends when stdin does.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import sys
import threading
from typing import IO

import msgspec

from dynctl.bench.job import Job, Progress, Result
from dynctl.bench.loader import Loader
from dynctl.http.call import ClientError

STOP = b""
"""The frame that stops the job under way."""
_DECODER = msgspec.msgpack.Decoder(Job)


class Unreachable(msgspec.Struct, frozen=True, kw_only=True, tag="unreachable"):
    """The server could not be connected to, so that no request was sent."""

    why: str


Answer = Progress | Result | Unreachable


def write_frame(pipe: IO[bytes], data: bytes) -> None:
    """One frame: its length in four bytes, then its bytes."""
    pipe.write(len(data).to_bytes(4, "big") + data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes | None:
    """The next frame; None at the end."""
    head = pipe.read(4)
    if len(head) < 4:
        return None
    size = int.from_bytes(head, "big")
    data = pipe.read(size)
    return data if len(data) == size else None


def main() -> int:
    """Serves jobs until stdin ends. Ctrl-C is the parent's affair."""
    import uvloop

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    writer = threading.Thread(target=_write_out, daemon=True)
    writer.start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
    _outgoing.put(None)
    writer.join()
    return 0


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    frames: asyncio.Queue[bytes | None] = asyncio.Queue()

    def read() -> None:
        while True:
            frame = read_frame(sys.stdin.buffer)
            loop.call_soon_threadsafe(frames.put_nowait, frame)
            if frame is None:
                return

    threading.Thread(target=read, daemon=True).start()
    while (frame := await frames.get()) is not None:
        if frame != STOP and not await _job(_DECODER.decode(frame), frames):
            return


async def _job(job: Job, frames: asyncio.Queue[bytes | None]) -> bool:
    """Runs one job to its end, or until a frame says stop; False when stdin ended meanwhile."""
    loader = Loader(job, _tell)
    running = asyncio.ensure_future(loader.run())
    told = asyncio.ensure_future(frames.get())
    await asyncio.wait((running, told), return_when=asyncio.FIRST_COMPLETED)
    if told.done():
        loader.stop()
    else:
        told.cancel()
    try:
        _tell(await running)
    except ClientError as error:
        _tell(Unreachable(why=error.message))
    return not told.done() or told.cancelled() or told.result() is not None


_outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()


def _tell(answer: Answer) -> None:
    _outgoing.put(msgspec.msgpack.encode(answer))


def _write_out() -> None:
    """In a thread of its own: a parent that is slow to read must not hold up the event loop."""
    while (frame := _outgoing.get()) is not None:
        try:
            write_frame(sys.stdout.buffer, frame)
        except BrokenPipeError:
            os._exit(1)  # the parent is gone: nobody is left to measure for
