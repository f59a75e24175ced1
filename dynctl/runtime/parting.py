"""How the nodes of a run part: all of them end together, or one goes with a word to the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from dynctl.nodes.exchange import Exchange
from dynctl.nodes.messages import AskEnd
from dynctl.nodes.peer import Peer
from dynctl.store.log import EventLog

LAST_WORD_S = 15.0
LINGER_S = 3.0
"""So long after its failure a node that was never ready still looks for those it has not met, to tell them."""


class Parting:
    """`head`: the frontend's node. `until`: returns once something is so, looked at whenever another node has news.

    `ended`: what survived this node's end; None while it has not ended.
    """

    def __init__(
        self, exchange: Exchange, head: str, until: Callable[[Callable[[], bool]], Awaitable[None]], events: EventLog
    ) -> None:
        self._exchange, self._head, self._until, self._events = exchange, head, until, events
        self._together = self._asks = False
        self._asked: list[Peer] = []
        self.ended: tuple[str, ...] | None = None

    def ask_all(self, grace_s: float, *, now: bool) -> None:
        """Asks the other nodes to end their parts."""
        self._together = self._asks = True
        self._asked = self._exchange.ask_end(AskEnd(grace_s=grace_s, now=now))

    def asked_by(self, peer: Peer) -> None:
        """`down --all` on another node."""
        self._together = True
        self._events.add("node", f"node {peer.name} asks for the end of the run")

    def begin(self) -> None:
        """This node's part ends from here on: the others are told at once."""
        self._exchange.tell()

    async def drained(self, grace_s: float) -> None:
        """Where all nodes end together: returns once the frontend has, which drains; `grace_s` at most.

        Until then requests that it took are under way here.
        """
        head = self._exchange.peers.get(self._head)
        if not self._together or head is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._until(lambda: not _has_frontend(head))

    async def last_words(self, survivors: list[str], grace_s: float) -> tuple[str, ...]:
        """Tells the others what survived here. On the node that asked for the end of all: what is to be said of them.

        Those that have ended and left nothing are an event each.
        """
        self.ended = tuple(survivors)
        self._exchange.tell()
        if not self._asks:
            return ()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s + LAST_WORD_S):
                await self._until(lambda: not any(p.link and not _has_ended(p) for p in self._asked))
        return tuple(said for peer in self._exchange.peers.values() if (said := self._outcome(peer)))

    async def linger(self) -> None:
        """Returns when every node was met and so knows of this one's failure, at last after `LINGER_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await self._until(lambda: all(peer.met for peer in self._exchange.peers.values()))

    def _outcome(self, peer: Peer) -> str | None:
        """What is to be said of it; None where it has ended and left nothing."""
        if not _has_ended(peer):
            if peer in self._asked:
                return f"node {peer.name} did not say that it has ended"
            return peer.why_not() or f"node {peer.name} can't be reached"
        if peer.report and peer.report.survivors:
            return f"node {peer.name}: still alive: {', '.join(peer.report.survivors)}"
        self._events.add("node", f"node {peer.name} has ended, nothing of it is left")
        return None


def _has_ended(peer: Peer) -> bool:
    return peer.report is not None and peer.report.ended


def _has_frontend(peer: Peer) -> bool:
    """Whether its frontend still runs, as far as can be known."""
    if peer.link is None or peer.report is None or peer.report.ended:
        return False
    return any(process.role == "frontend" and process.pid for process in peer.report.processes)
