"""Streams that are only passed on, read many at a time: a wake-up of the process for each chunk costs more than the
chunk does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections import deque
from typing import Protocol

TICK_S = 0.002
"""How long a chunk may wait for others: a wake-up costs up to 50 µs of a virtual machine, as much as five chunks."""
_MANY = 8
_READ_BYTES = 65_536
_TOGETHER = 64
"""Chunks read before the first is written: who gets several on this machine is woken less, a fifth of their cost."""
_BEFORE_OTHERS = 2
"""Chunks written before it is looked whether anything else has come."""


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
    read in one go, at every tick until there is little; then the event loop is asked again when something comes. So do
    network drivers under load. Whatever else comes meanwhile is served first: it may be what a first token waits for.
    """

    def __init__(self) -> None:
        self._aboard: dict[int, Passenger] = {}
        self._ready: select.epoll | None = None
        self._loop: asyncio.AbstractEventLoop = None  # type: ignore[assignment]  # known once there is a passenger
        self._others: select.poll | None = None
        self._next: asyncio.Handle | None = None
        self._read: deque[tuple[Passenger, bytes]] = deque()

    def board(self, descriptor: int, passenger: Passenger) -> None:
        """Read that socket from now on."""
        if self._ready is None:
            self._ready = select.epoll()
            self._loop = asyncio.get_running_loop()
            self._others = _events_of(self._loop)
            self._loop.add_reader(self._ready.fileno(), self._wake, self._ready)
        self._aboard[descriptor] = passenger
        self._ready.register(descriptor, select.EPOLLIN)

    def leave(self, descriptor: int, passenger: Passenger) -> None:
        """Read it no more; what has been read for it is given to it before this returns."""
        if self._ready is None or self._aboard.get(descriptor) is not passenger:
            return
        del self._aboard[descriptor]
        with contextlib.suppress(OSError):  # closed already: then it has left the set by itself
            self._ready.unregister(descriptor)
        for entry in [entry for entry in self._read if entry[0] is passenger]:
            self._read.remove(entry)
            if entry[1]:  # else the other side closed, which the transport will find out
                passenger.data_received(entry[1])

    def close(self) -> None:
        """Read none any more."""
        self._aboard.clear()
        self._read.clear()
        if self._next is not None:
            self._next.cancel()
        if self._ready is not None:
            self._loop.remove_reader(self._ready.fileno())
            self._ready.close()
        self._next = self._ready = None

    def _wake(self, ready: select.epoll) -> None:
        """Something has come."""
        if len(self._aboard) < _MANY:
            _, left = self._carry(ready)
            if not left:
                return
            self._next = self._loop.call_soon(self._let_pass, ready)
        else:
            self._next = self._loop.call_later(TICK_S, self._tick, ready)
        self._loop.remove_reader(ready.fileno())

    def _tick(self, ready: select.epoll) -> None:
        """A tick has passed, or what was to be served first has been."""
        carried, left = self._carry(ready)
        if left:
            self._next = self._loop.call_soon(self._let_pass, ready)
        elif carried > 1 and len(self._aboard) >= _MANY:
            self._next = self._loop.call_later(TICK_S, self._tick, ready)
        else:
            self._next = None
            self._loop.add_reader(ready.fileno(), self._wake, ready)

    def _let_pass(self, ready: select.epoll) -> None:
        """A timer's callbacks, and what they call soon, run before the loop looks for events; what this does, after."""
        self._next = self._loop.call_soon(self._tick, ready)

    def _carry(self, ready: select.epoll) -> tuple[int, bool]:
        """Hand on what has come: how many chunks, and whether some are left, as something else has come."""
        carried = self._hand_on()
        if self._read:
            return carried, True
        came = ready.poll(0)
        for at in range(0, len(came), _TOGETHER):
            if at and self._others_wait():
                return carried, True
            self._take_in(came[at : at + _TOGETHER])
            carried += self._hand_on()
            if self._read:
                return carried, True
        return carried, False

    def _take_in(self, came: list[tuple[int, int]]) -> None:
        """Read what has come, each connection once."""
        for descriptor, _ in came:
            passenger = self._aboard.get(descriptor)
            if passenger is None:
                continue
            try:
                data = os.read(descriptor, _READ_BYTES)
            except BlockingIOError:
                continue  # nothing has come after all
            except OSError:
                data = b""
            self._read.append((passenger, data))

    def _hand_on(self) -> int:
        """Give passengers what was read for them, until something else has come: to how many."""
        read, count = self._read, 0
        while read:
            if count and not count % _BEFORE_OTHERS and self._others_wait():
                break
            passenger, data = read.popleft()
            count += 1
            try:
                if data:
                    passenger.data_received(data)
                else:
                    passenger.ashore()
            except Exception as error:
                self._failed(passenger, error)
        return count

    def _others_wait(self) -> bool:
        return self._others is not None and bool(self._others.poll(0))

    def _failed(self, passenger: Passenger, error: Exception) -> None:
        context = {"message": "a stream could not be passed on", "exception": error}
        self._loop.call_exception_handler(context)
        passenger.cut()


def _events_of(loop: asyncio.AbstractEventLoop) -> select.poll | None:
    """What tells whether that event loop has something to do; None where it keeps that to itself."""
    backend = getattr(loop, "_get_backend_id", None)  # uvloop has it for its own tests
    if backend is None:
        return None
    events = select.poll()
    events.register(backend(), select.POLLIN)
    return events
