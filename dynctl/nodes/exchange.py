"""This node's links to all others: of two, the later in the file dials; each tells the other all of itself, always.

Reports say everything each time, so that a link that was cut needs no catching up once it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec

import dynctl
from dynctl.errors import DynctlError, HostError, TransportError, UsageError
from dynctl.fabric.peer.address import format_address
from dynctl.fabric.peer.link import GREETING_S, Link, greet
from dynctl.fabric.peer.messages import Trouble
from dynctl.nodes.messages import Answer, Ask, AskEnd, Errand, ErrandDone, FromPeer, Meet, Report, Unproven
from dynctl.nodes.peer import Peer
from dynctl.nodes.questions import Questions
from dynctl.nodes.seen import LogSeen
from dynctl.nodes.words import NodePurpose, OneSided, disagreement
from dynctl.plan.values import Plan

TICK_S = 0.2
TELL_S = 1.0
CONNECT_S = 3.0
FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 2.0
ANSWER_S = 10.0
MOST_GREETED = 64
"""Connections of one node that may be greeted at the same time, and of all strangers together: these shut out none."""


class Desk(Protocol):
    """What the links ask of the supervisor."""

    def report(self) -> Report:
        """What this node says of itself now."""

    def news(self, peer: Peer | None) -> None:
        """That node said something, was met or went; None: time has passed."""

    def refused(self, error: DynctlError, peer: Peer | None) -> None:
        """A node can't be of this run. `peer`: which one, where that is known."""

    def seen(self, process: str) -> Awaitable[LogSeen]:
        """What the log of a process of this node told."""

    def asked_to_end(self, peer: Peer, message: AskEnd) -> None:
        """Another node asks for this one's end."""

    def unproven(self, peer: Peer, message: Unproven) -> None:
        """Another node could not prove a process of this one."""


class Exchange:
    """All links. `peers` by name, in the file's order. `run_errand`: what another node asks for, to its end."""

    def __init__(self, plan: Plan, run_id: str, secret: str, desk: Desk) -> None:
        self._plan, self._secret, self._desk = plan, secret, desk
        self._meet = Meet(
            run=plan.name, node=plan.node, run_id=run_id, digest=plan.digest, agreed=plan.agreed, rdma=plan.rdma
        )
        names = [node.name for node in plan.nodes]
        self._own = plan.nodes[names.index(plan.node)]
        self._earlier = set(names[: names.index(plan.node)])
        self.peers = {node.name: Peer(node) for node in plan.nodes if node is not self._own}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._greeting: Counter[str | None] = Counter()
        self._questions = Questions()
        self.run_errand: Callable[[Errand], Awaitable[ErrandDone]] | None = None
        self._told: Report | None = None
        self._told_at = 0.0

    async def start(self) -> None:
        """Listens at the node's own address and begins to dial. HostError if the port can't be had."""
        where = format_address(self._own.address, self._own.control_port)
        try:
            self._server = await asyncio.start_server(self._called, self._own.address, self._own.control_port)
        except OSError as error:
            raise HostError(
                f"can't listen for the other nodes on {where}",
                where=f"nodes.{self._own.name}",
                why=error.strerror or str(error),
                fix="see what holds the port (`ss -ltnp`), or give this node other `ports`",
            ) from error
        for name in self._earlier:
            self._spawn(self._dial(self.peers[name]))
        self._spawn(self._tick())

    def tell(self) -> None:
        """Tells all others what this node is now."""
        report = self._desk.report()
        self._told, self._told_at = report, time.monotonic()
        for peer in self.peers.values():
            if peer.link:
                peer.link.send(report)

    def ask_end(self, message: AskEnd) -> list[Peer]:
        """Asks every node that can be reached to end its part; those that were asked."""
        asked = [peer for peer in self.peers.values() if peer.link and peer.alive()]
        for peer in asked:
            if peer.link:
                peer.link.send(message)
        return asked

    def tell_unproven(self, node: str, message: Unproven) -> None:
        """Tells a node, where it can be reached, that a process of its own could not be proven."""
        link = self.peers[node].link
        if link:
            link.send(message)

    async def ask_seen(self, node: str, process: str) -> LogSeen:
        """What the log of a process on another node told. Nothing, where the node does not answer."""
        with contextlib.suppress(TimeoutError, TransportError):
            async with asyncio.timeout(ANSWER_S):
                link = self.peers[node].link
                seen: LogSeen = await self._questions.ask(link, lambda number: Ask(number=number, process=process))
                return seen
        return LogSeen()

    async def ask_errand(self, node: str, errand: Errand) -> ErrandDone:
        """What came of it, however long that takes. TransportError when the node can't be reached, or is lost."""
        link = self.peers[node].link
        done: ErrandDone = await self._questions.ask(link, lambda n: msgspec.structs.replace(errand, number=n))
        return done

    async def close(self) -> None:
        """Ends all links, once what was sent has gone out."""
        if self._server:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # one link

    async def _dial(self, peer: Peer) -> None:
        node, wait_s = peer.node, FIRST_WAIT_S
        where = format_address(node.address, node.control_port)
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_connection(
                        node.address, node.control_port, local_addr=(self._own.address, 0)
                    )
            except TimeoutError:
                peer.trouble = f"no answer from {where} within {CONNECT_S:g} s: is the port open in its firewall?"
            except ConnectionRefusedError:
                peer.trouble = f"nothing listens at {where}"
            except OSError as error:
                peer.trouble = f"{where} can't be reached: {error.strerror or error}"
            else:
                with contextlib.suppress(OSError, TransportError):
                    if await self._over(reader, writer, peer):
                        wait_s = FIRST_WAIT_S
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _over(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: Peer) -> bool:
        """One connection that this node made, to its end; whether the other was met."""
        try:
            link = await greet(reader, writer, "connect", self._secret, dynctl.__version__, NodePurpose(peer.node))
        except DynctlError as error:
            peer.trouble = f"{error.cause} ({error.why[0]})" if error.why else error.cause
            if isinstance(error, UsageError):
                self._desk.refused(error, peer)
            return False
        return await self._talk(link, peer)

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = (writer.get_extra_info("peername") or ("",))[0]
        caller = next((peer for peer in self.peers.values() if peer.node.address == address), None)
        who = caller.name if caller else None
        if self._greeting[who] >= MOST_GREETED:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        if task:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._greeting[who] += 1
        try:
            link = await greet(
                reader, writer, "listen", self._secret, dynctl.__version__, NodePurpose(caller.node if caller else None)
            )
        except DynctlError as error:
            error.where = f"a connection from {address}"
            if caller and not caller.alive():
                caller.trouble = error.cause
            # whoever has not proven to know the secret must not be able to end anything
            self._desk.refused(TransportError(error.cause, where=error.where, why=error.why, fix=error.fix), caller)
            return
        except OSError:
            return
        finally:
            self._greeting[who] -= 1
        with contextlib.suppress(OSError, TransportError):
            await self._talk(link, None)

    async def _talk(self, link: Link, dialled: Peer | None) -> bool:
        """Meets and listens until the link is lost; whether the other was met."""
        peer: Peer | None = None
        try:
            link.send(self._meet)
            async with asyncio.timeout(GREETING_S):
                meet = await link.receive(Meet)
            peer = self._admitted(meet, dialled)
            peer.take_link(link, meet.run_id)
            link.send(self._desk.report())
            self._desk.news(peer)
            while True:
                # msgspec reads any of the union's types by its tag
                self._take(await link.receive(FromPeer), peer, link)  # type: ignore[arg-type]
        except TimeoutError:
            if dialled:
                dialled.trouble = "it does not say which node it is"
            return False
        except (UsageError, OneSided) as error:
            link.send(Trouble(cause=f"node {self._own.name} refuses: {error.cause}", fix=error.fix))
            self._desk.refused(error, dialled)
            return False
        except TransportError as error:
            if peer is None:
                link.send(Trouble(cause=error.cause, fix=error.fix))
                if dialled:
                    dialled.trouble = error.cause
            return peer is not None
        finally:
            if peer:
                self._questions.lost(link)
                peer.lose_link(link)
                self._desk.news(peer)
            await link.close()

    def _admitted(self, meet: Meet, dialled: Peer | None) -> Peer:
        """Which node it is. UsageError if it can't be of this run."""
        error = disagreement(self._plan, meet)
        if error:
            raise error
        peer = self.peers[meet.node]
        if dialled and peer is not dialled:
            raise UsageError(
                f"node {meet.node} answers at the address of node {dialled.name}",
                fix="start each node with its own `--node`",
            )
        if peer.link and peer.run_id != meet.run_id and peer.alive():
            # it may be half open: until that is known, the newcomer has to try again
            raise TransportError(f"another supervisor is node {meet.node} already", fix="end one of the two")
        return peer

    def _take(self, message: FromPeer, peer: Peer, link: Link) -> None:
        match message:
            case Report():
                peer.take_report(message, time.time())
                self._desk.news(peer)
            case Ask():
                self._spawn(self._answer(message, link))
            case Answer():
                self._questions.answered(message.number, message.seen)
            case AskEnd():
                self._desk.asked_to_end(peer, message)
            case Unproven():
                self._desk.unproven(peer, message)
            case Errand():
                self._spawn(self._do(message, link))
            case ErrandDone():
                self._questions.answered(message.number, message)

    async def _answer(self, ask: Ask, link: Link) -> None:
        seen = await self._desk.seen(ask.process)
        with contextlib.suppress(TransportError):
            link.send(Answer(number=ask.number, seen=seen))

    async def _do(self, errand: Errand, link: Link) -> None:
        done = await self.run_errand(errand) if self.run_errand else ErrandDone(number=0)
        with contextlib.suppress(TransportError):
            link.send(msgspec.structs.replace(done, number=errand.number))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._desk.news(None)
            if self._told is None or time.monotonic() - self._told_at >= TELL_S or self._changed():
                self.tell()

    def _changed(self) -> bool:
        now = msgspec.structs.replace(self._desk.report(), now=0.0)
        return self._told is None or now != msgspec.structs.replace(self._told, now=0.0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
