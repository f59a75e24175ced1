"""A connection whose reads carry the kernel's time of their arrival, and whose writes go out at once.

An event loop that is busy reads late and, written through its transport, writes late: of 200 streams that come in step
the last one waits for the 199 before it. The kernel's stamp (SO_TIMESTAMPNS) is taken as the packet comes in, whatever
the loop is at. Where there is none (TLS, other systems) a read counts from when it was made.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable

from dynctl.http.client import Connect, by_loop
from dynctl.http.origin import Origin
from dynctl.http.upstream import Upstream

SO_TIMESTAMPNS = 35
"""Linux's, of every architecture but PA-RISC and SPARC; the socket module has no name for it."""
_STAMP = struct.Struct("qq")
_ROOM = socket.CMSG_SPACE(_STAMP.size)
READ_BYTES = 1 << 16
LONGEST_AGE_NS = 10_000_000_000
"""A stamp older than that is a clock that was set meanwhile."""


class Arrivals:
    """When the bytes that are handed on right now came in: seconds of CLOCK_MONOTONIC."""

    __slots__ = ("_at_s",)

    def __init__(self) -> None:
        self._at_s: float | None = None

    def now(self) -> float:
        """The arrival of what is being read, or simply now."""
        return time.perf_counter() if self._at_s is None else self._at_s

    def of_stamp(self, stamp_ns: int) -> None:
        """Of CLOCK_REALTIME, which may be set: only its distance from now is used."""
        age_ns = time.time_ns() - stamp_ns
        self._at_s = time.perf_counter() - age_ns * 1e-9 if 0 <= age_ns < LONGEST_AGE_NS else None

    def forget(self) -> None:
        """The read is over."""
        self._at_s = None


class Wire(asyncio.Transport):
    """A connected socket's transport, with as much of asyncio's as the HTTP client needs."""

    __slots__ = ("_arrivals", "_closing", "_loop", "_protocol", "_sock", "_unsent")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, to: Upstream, arrivals: Arrivals) -> None:
        super().__init__()
        self._loop, self._sock, self._protocol, self._arrivals = loop, sock, to, arrivals
        self._unsent = bytearray()
        self._closing = False
        to.connection_made(self)
        if not self._closing:
            loop.add_reader(sock, self._readable)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sent before it returns, as far as the kernel takes it."""
        if self._closing:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._loop.call_soon(self._lost, error)
                return
            if sent == len(data):
                return
            self._loop.add_writer(self._sock, self._writable)
        self._unsent += memoryview(data)[sent:]

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """In one packet, where it fits into one."""
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        """No more reads."""
        if not self._closing:
            self._loop.remove_reader(self._sock)

    def resume_reading(self) -> None:
        """Reads again."""
        if not self._closing:
            self._loop.add_reader(self._sock, self._readable)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def close(self) -> None:
        """As `abort`: what was not sent by now is not missed."""
        self.abort()

    def abort(self) -> None:
        """Close at once; the protocol hears of it from the loop."""
        if not self._closing:
            self._shut()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def _readable(self) -> None:
        try:
            data, extra, _, _ = self._sock.recvmsg(READ_BYTES, _ROOM)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        if not data:
            self._protocol.eof_received()
            self._lost(None)
            return
        arrivals = self._arrivals
        if extra:
            seconds, nanoseconds = _STAMP.unpack(extra[0][2])
            arrivals.of_stamp(seconds * 1_000_000_000 + nanoseconds)
        self._protocol.data_received(data)
        arrivals.forget()

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lost(error)
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._sock)

    def _lost(self, error: Exception | None) -> None:
        if not self._closing:
            self._shut()
            self._protocol.connection_lost(error)

    def _shut(self) -> None:
        self._closing = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()


def wired(arrivals: Arrivals, tls: ssl.SSLContext | None = None) -> Connect:
    """How the client is to connect, so that `arrivals` knows when reads came. `tls`: whom https trusts."""

    async def connect(make: Callable[[], Upstream], origin: Origin) -> Upstream:
        loop = asyncio.get_running_loop()
        if origin.tls:
            return await by_loop(make, origin, tls)
        failed: OSError | None = None
        for family, kind, number, _, address in await loop.getaddrinfo(
            origin.host, origin.port, type=socket.SOCK_STREAM
        ):
            sock = socket.socket(family, kind, number)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                await loop.sock_connect(sock, address)
            except OSError as error:
                sock.close()
                failed = error
                continue
            except BaseException:
                sock.close()
                raise
            upstream = make()
            Wire(loop, sock, upstream, arrivals)
            return upstream
        raise failed or OSError(f"no address of {origin.host}")

    return connect
