"""How two nodes find each other: one waits for a single peer, the other connects; then both greet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psutil

import dynctl
from dynctl.errors import DynctlError, HostError, TransportError, UsageError
from dynctl.fabric.peer.address import format_address
from dynctl.fabric.peer.handshake import Purpose, Side
from dynctl.fabric.peer.link import Link, greet
from dynctl.fabric.peer.messages import Trouble

CONNECT_S = 8.0


class Meeting:
    """A link to the peer, which side this is, and the addresses of the connection's ends as seen here."""

    def __init__(self, link: Link, side: Side, own_address: str, peer_address: str) -> None:
        self.link, self.side = link, side
        self.own_address, self.peer_address = own_address, peer_address

    @property
    def netdev(self) -> str | None:
        """The network interface that has this end's address."""
        plain = self.own_address.split("%")[0]
        for name, addresses in psutil.net_if_addrs().items():
            if any(address.address.split("%")[0] == plain for address in addresses):
                return name
        return None


@asynccontextmanager
async def listen(host: str, port: int, token: str, ready: Callable[[str], None]) -> AsyncIterator[Meeting]:
    """Waits for one peer; `ready` is told the address. Whoever connects first is the one: a stranger ends it, too."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        server = socket.create_server(found[0][4], family=found[0][0], backlog=1)
    except socket.gaierror as error:
        raise _no_host(host, "--listen", error) from error
    except OSError as error:
        raise _cannot_bind(host, port, error) from error
    with server:
        server.setblocking(False)
        ready(format_address(host, server.getsockname()[1]))
        connection, _ = await asyncio.get_running_loop().sock_accept(server)
    reader, writer = await asyncio.open_connection(sock=connection)
    async with greeted(reader, writer, "listen", token) as meeting:
        yield meeting


@asynccontextmanager
async def connect(host: str, port: int, token: str) -> AsyncIterator[Meeting]:
    """Connects to a listener. UsageError for a name that is none, TransportError when nothing answers."""
    where = format_address(host, port)
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, port)
    except socket.gaierror as error:
        raise _no_host(host, "--peer", error) from error
    except TimeoutError:
        raise _no_answer(where, f"no answer within {CONNECT_S:g} s") from None
    except OSError as error:
        raise _no_answer(where, error.strerror or str(error)) from error
    async with greeted(reader, writer, "connect", token) as meeting:
        yield meeting


@asynccontextmanager
async def greeted(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    side: Side,
    token: str,
    purpose: Purpose | None = None,
) -> AsyncIterator[Meeting]:
    """The meeting over a connection that stands; when it ends with an error, the peer is told why."""
    own, peer = writer.get_extra_info("sockname")[0], writer.get_extra_info("peername")[0]
    try:
        link = await greet(reader, writer, side, token, dynctl.__version__, purpose)
    except DynctlError as error:
        error.where = error.where or f"the connection with {peer}"
        raise
    try:
        yield Meeting(link, side, own, peer)
    except DynctlError as error:
        link.send(Trouble(cause=error.cause, fix=error.fix))
        raise
    finally:
        await link.close()


def _no_host(host: str, option: str, error: OSError) -> UsageError:
    return UsageError(f"there is no host `{host}`", where=option, why=error.strerror, fix="give a name that resolves")


def _no_answer(where: str, why: str) -> TransportError:
    return TransportError(
        f"nothing listens at {where}",
        where="--peer",
        why=why,
        fix="start `dynctl check-rdma --listen ADDRESS` on the other node with the address of the network to prove; "
        "is the port open in its firewall?",
    )


def _cannot_bind(host: str, port: int, error: OSError) -> HostError:
    why = error.strerror or str(error)
    return HostError(
        f"can't listen on {format_address(host, port)}",
        where="--listen",
        why=why,
        fix="name an address of this node (`ip -br address`) and a port that is free",
    )
