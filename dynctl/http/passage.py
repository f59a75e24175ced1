"""The short way into a connection: past the event loop's queue of writes."""

from __future__ import annotations

import asyncio
import os


class Passage:
    """Writes to a transport whatever it is given; `last` is what that was, `count` how often, `moved` is set each time.

    Where nothing waits in the transport's own buffer the bytes go to the socket at once, which costs less than the
    event loop's queue of writes. What the socket does not take, and any fault of it, is left to the transport.
    `descriptor`: the socket's, open until the transport begins to close; None over TLS.
    """

    __slots__ = ("_transport", "count", "descriptor", "last", "moved")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        plain = transport.get_extra_info("sslcontext") is None
        sock = transport.get_extra_info("socket") if plain else None
        self.descriptor: int | None = sock.fileno() if sock is not None else None
        self.moved = False
        self.count = 0
        self.last = b""

    def write(self, data: bytes) -> None:
        """Send; after the transport began to close, nothing."""
        self.moved = True
        self.count += 1
        self.last = data
        transport = self._transport
        if transport.is_closing():  # the descriptor may be another connection's by now
            return
        if self.descriptor is None or transport.get_write_buffer_size():
            transport.write(data)
            return
        try:
            sent = os.write(self.descriptor, data)
        except OSError:
            sent = 0
        if sent < len(data):
            transport.write(data[sent:])
