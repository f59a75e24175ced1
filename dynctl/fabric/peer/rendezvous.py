"""How two named nodes find each other: both know from their file who listens and where, and neither must be first."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dynctl.errors import DynctlError, HostError, TransportError, UsageError
from dynctl.fabric.peer.address import format_address
from dynctl.fabric.peer.handshake import PROTOCOL, Hello, Purpose, Side, it_said
from dynctl.fabric.peer.meeting import CONNECT_S, Meeting, greeted

AGAIN_S = 0.5


class BetweenNodes(Purpose):
    """`check-rdma` between nodes of one file. `where`: the meeting's address, `other`: the node to be met there."""

    def __init__(self, other: str, where: str) -> None:
        self.other, self.where = other, where

    def wrong_token(self, side: Side) -> DynctlError:
        """The secrets differ, or the runs' names."""
        kind = UsageError if side == "connect" else TransportError
        return kind(
            f"node {self.other} has another secret",
            where=self.where,
            why="what both prove is made of the secret (`secret_file`, or DYNCTL_SECRET) and the topology's name",
            fix="give every node the same secret and the same file",
        )

    def not_dynctl(self, data: bytes = b"") -> DynctlError:
        """Something else holds the port, or came to it."""
        return TransportError(
            f"what meets this node in the place of node {self.other} is not `dynctl check-rdma`",
            where=self.where,
            why=it_said(data),
            fix="see what holds the port; `nodes` gives each node its range of `ports`",
        )

    def other_version(self, hello: Hello, own: str) -> DynctlError:
        """Two dynctl that may not understand each other."""
        return TransportError(
            f"node {self.other} runs dynctl {hello.version[:40]} (protocol {hello.protocol}), "
            f"this node {own} (protocol {PROTOCOL})",
            where=self.where,
            fix="install the same version on every node",
        )


@asynccontextmanager
async def await_node(other: str, host: str, port: int, token: str, within_s: float) -> AsyncIterator[Meeting]:
    """Listens at this node's own address until the other dials. TransportError when it does not within `within_s`."""
    where = format_address(host, port)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        server = socket.create_server(found[0][4], family=found[0][0], backlog=1)
    except OSError as error:
        raise HostError(
            f"can't listen at {where} for node {other}",
            why=error.strerror or str(error),
            fix="end what holds the port, or give this node another range of `ports`",
        ) from error
    with server:
        server.setblocking(False)
        try:
            async with asyncio.timeout(within_s):
                connection, _ = await asyncio.get_running_loop().sock_accept(server)
        except TimeoutError:
            raise TransportError(
                f"node {other} did not come to {where} within {within_s:g} s",
                why="it was not started there, can't reach this address, or a firewall drops what it sends",
                fix=f"start `dynctl check-rdma FILE` on node {other} with the same file",
            ) from None
    reader, writer = await asyncio.open_connection(sock=connection)
    async with greeted(reader, writer, "listen", token, BetweenNodes(other, where)) as meeting:
        yield meeting


@asynccontextmanager
async def dial_node(other: str, host: str, port: int, token: str, within_s: float) -> AsyncIterator[Meeting]:
    """Dials the other until it listens. TransportError with the last reason when it does not within `within_s`."""
    where = format_address(host, port)
    reader, writer = await _dial(other, host, port, within_s)
    async with greeted(reader, writer, "connect", token, BetweenNodes(other, where)) as meeting:
        yield meeting


async def _dial(other: str, host: str, port: int, within_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    began = time.monotonic()
    while True:
        left_s = within_s - (time.monotonic() - began)
        try:
            async with asyncio.timeout(min(CONNECT_S, max(left_s, AGAIN_S))):
                return await asyncio.open_connection(host, port)
        except TimeoutError:
            why = "nothing comes back: the node is down, the link is cut, or a firewall drops the packets"
        except OSError as error:  # asyncio words it as its own call
            why = os.strerror(error.errno) if error.errno else str(error)
        if time.monotonic() - began + AGAIN_S >= within_s:
            raise TransportError(
                f"node {other} does not answer at {format_address(host, port)} within {within_s:g} s",
                why=why,
                fix=f"start `dynctl check-rdma FILE` on node {other} with the same file; open its firewall",
            )
        await asyncio.sleep(AGAIN_S)
