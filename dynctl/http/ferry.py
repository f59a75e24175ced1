"""Streams that are only passed on, read many at a time: a wake-up of the process for each chunk costs more than the
chunk does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from typing import Protocol

TICK_S = 0.001
"""How long a chunk may wait for others. The event loop's timers know no less."""
_MANY = 8
_READ_BYTES = 65_536


class Passenger(Protocol):
    """A connection that is read here, and no longer by its transport."""

    def data_received(self, data: bytes) -> None:
        """What one read brought."""

    def ashore(self) -> None:
        """Leave, and have the transport read again: the other side closed, or reading failed."""

    def cut(self) -> None:
        """Close: it could not take what it was given."""


class Ferry:
    """Reads connections for their transports, which must have paused reading.

    Of a few streams each chunk is read as it comes. Of many it waits, `TICK_S` at most, and what has come by then is
    read together, at every tick until there is little; then the event loop is asked again when something comes. So do
    network drivers under load.
    """

    def __init__(self) -> None:
        self._aboard: dict[int, Passenger] = {}
        self._ready: select.epoll | None = None
        self._timer: asyncio.TimerHandle | None = None

    def board(self, descriptor: int, passenger: Passenger) -> None:
        """Read that socket from now on."""
        if self._ready is None:
            self._ready = select.epoll()
            asyncio.get_running_loop().add_reader(self._ready.fileno(), self._wake, self._ready)
        self._aboard[descriptor] = passenger
        self._ready.register(descriptor, select.EPOLLIN)

    def leave(self, descriptor: int, passenger: Passenger) -> None:
        """Read it no more."""
        if self._ready is None or self._aboard.get(descriptor) is not passenger:
            return
        del self._aboard[descriptor]
        with contextlib.suppress(OSError):  # closed already: then it has left the set by itself
            self._ready.unregister(descriptor)

    def close(self) -> None:
        """Read none any more."""
        self._aboard.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._ready is not None:
            asyncio.get_running_loop().remove_reader(self._ready.fileno())
            self._ready.close()
        self._timer = self._ready = None

    def _wake(self, ready: select.epoll) -> None:
        """Something has come."""
        if len(self._aboard) < _MANY:
            self._carry(ready)
        else:
            loop = asyncio.get_running_loop()
            loop.remove_reader(ready.fileno())
            self._timer = loop.call_later(TICK_S, self._tick, ready)

    def _tick(self, ready: select.epoll) -> None:
        """A tick has passed."""
        loop = asyncio.get_running_loop()
        if self._carry(ready) > 1:
            self._timer = loop.call_later(TICK_S, self._tick, ready)
        else:
            self._timer = None
            loop.add_reader(ready.fileno(), self._wake, ready)

    def _carry(self, ready: select.epoll) -> int:
        """Read whatever has come; of how many."""
        some = [descriptor for descriptor, _ in ready.poll(0)]
        # all reads, then all writes: who reads at the other end is woken once for many
        for passenger, data in [(self._aboard[descriptor], _read(descriptor)) for descriptor in some]:
            try:
                if data:
                    passenger.data_received(data)
                elif data is not None:
                    passenger.ashore()
            except Exception as error:
                context = {"message": "a stream could not be passed on", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
                passenger.cut()
        return len(some)


def _read(descriptor: int) -> bytes | None:
    """What has come; nothing at the end, or where it can't be read; None: nothing has come after all."""
    try:
        return os.read(descriptor, _READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""
