"""What two nodes do once they know each other: tell what they have, then read each other's memory, one after the other.

Both sides run the same steps in the same order; the one that connected moves first. The report is the same on both ends
but for whose it is.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dynctl.fabric.conclude import conclude, floor_between_nodes, stricter
from dynctl.fabric.pair_row import pair_row
from dynctl.fabric.peer.handshake import OTHER, Side
from dynctl.fabric.peer.link import Link
from dynctl.fabric.peer.measure import SIZES, Direction, Move, because, measure, pair_report, read
from dynctl.fabric.peer.messages import Found, Node, Offered, Ready, Turned
from dynctl.fabric.probe.child import Offer, ProbeAgent, ProbeError
from dynctl.fabric.report import Check, PairReport, Report, UcxLibrary
from dynctl.plan.values import PlannedPair, TransportClass

AGENT: dict[Side, str] = {"listen": "dynctl-listen", "connect": "dynctl-connect"}
"""Names of the two NIXL agents."""


class Session:
    """One run of two nodes, seen from one of them."""

    def __init__(self, link: Link, side: Side, own: Node, agent: ProbeAgent, say: Callable[[str], None]) -> None:
        self.link, self.side, self.own, self.agent, self.say = link, side, own, agent, say
        self.peer = own
        self.names: dict[Side, str] = {}
        self._checks: list[Check] = []

    async def meet(self) -> Node:
        """Tells what this node is, and learns what the other is."""
        self.link.send(self.own)
        self.peer = await self.link.receive(Node)
        listener, connector = (self.own, self.peer) if self.side == "listen" else (self.peer, self.own)
        self.names = {"listen": listener.hostname, "connect": connector.hostname}
        if listener.hostname == connector.hostname:  # addresses as the listener sees them: the same words on both ends
            self.names = {"listen": listener.own_address, "connect": listener.peer_address}
        if self.names["listen"] == self.names["connect"]:
            self.names = {"listen": "listener", "connect": "connector"}
        self.say(f"the peer is {self.names[OTHER[self.side]]}")
        return self.peer

    async def prove(self, checks: tuple[Check, ...], shared: tuple[Check, ...] = ()) -> Report:
        """Both directions, then the report. `checks`: this node's own rows, `shared`: those about both nodes."""
        ready = await self._open()
        self.link.send(ready)
        theirs = await self.link.receive(Ready)
        moves: list[Move] = []
        if not (ready.error or theirs.error):
            for turn in ("connect", "listen"):
                if turn == self.side:
                    moves = await self._move()
                else:
                    await self._serve()
        self.say("closing the endpoints, at which UCX says what it used")
        lines = await self.link.during(self.agent.close())
        pairs = self._reports(moves, lines) if moves else self._failed(ready, theirs)
        rows = [_of(self.names[self.side], row) for row in checks]
        rows += [self._row(pair) for pair in pairs]
        found = Found(checks=(*rows, *shared, *self._checks), pairs=pairs, ucx=ready.ucx)
        self.link.send(found)
        return self._conclude(found, await self.link.receive(Found))

    async def _open(self) -> Ready:
        self.say("starting NIXL on both nodes")
        try:
            opened = await self.link.during(self.agent.start())
        except ProbeError as error:
            cause, fix = because(error)
            return Ready(error=cause, fix=fix)
        source = f"NIXL on {self.names[self.side]}"
        return Ready(ucx=(UcxLibrary(source=source, version=opened.version, path=opened.library, used=True),))

    async def _serve(self) -> None:
        """The other's turn: offers memory, and looks at what was written into it."""
        try:
            offer = await self.link.during(self.agent.offer(max(self._sizes())))
            self.link.send(Offered(metadata=offer.metadata, descs=offer.descs, name=offer.name))
        except ProbeError as error:
            self.link.send(Offered(error=error.text))
        turned = await self.link.receive(Turned)
        if turned.written_bytes:
            try:
                await self.link.during(self.agent.arrived(AGENT[OTHER[self.side]], turned.written_bytes))
            except ProbeError as error:
                self._checks.append(
                    Check(
                        id="data",
                        target=self.names[self.side],
                        status="fail",
                        observed=error.text,
                        expected="the bytes that the other node wrote",
                        cause="the WRITE reported success without moving the data",
                        fix="do not serve over this path; try another NIC, or `UCX_TLS=tcp`, and report it to NIXL",
                    )
                )

    async def _move(self) -> list[Move]:
        """This node's turn: READs the other's memory, and WRITEs it where either node asks for both."""
        offered = await self.link.receive(Offered)
        directions: tuple[Direction, ...] = ("read", "write") if self.own.both or self.peer.both else ("read",)
        moves: list[Move] = []
        for direction in directions:
            base = self._base(direction)
            self.say(f"{direction.upper()} {base.from_} → {base.to}, {max(self._sizes()) >> 20} MiB")
            if offered.error:
                moves.append(Move(direction=direction, error=f"the other node offers no memory: {offered.error}"))
                continue
            offer = Offer(metadata=offered.metadata, descs=offered.descs, name=offered.name)
            moves.append(await self.link.during(measure(self.agent, offer, direction, self._sizes())))
        written = [move.large_bytes for move in moves if move.direction == "write" and not move.error]
        self.link.send(Turned(written_bytes=max(written, default=0)))
        return moves

    def _sizes(self) -> tuple[int, ...]:
        """Sizes of the transfers in bytes: the one that the connecting node asks for, else the listener, else all."""
        listener, connector = (self.own, self.peer) if self.side == "listen" else (self.peer, self.own)
        one = connector.size_bytes or listener.size_bytes
        return (one,) if one else SIZES

    def _required(self) -> str:
        return stricter(self.own.required, self.peer.required)

    def floor(self) -> TransportClass:
        """What the path between the two must reach."""
        return floor_between_nodes(self._required(), rdma=self.own.rdma and self.peer.rdma)

    def _needed(self) -> tuple[PlannedPair, ...]:
        floor = self.floor()
        listen, connect = self.names["listen"], self.names["connect"]
        return tuple(
            PlannedPair(from_=a, to=b, path=floor, floor=floor, reason="between two nodes")
            for a, b in ((listen, connect), (connect, listen))
        )

    def _base(self, direction: Direction) -> PairReport:
        """The pair that this node moves: data come to it in a READ and go from it in a WRITE."""
        own, other = self.names[self.side], self.names[OTHER[self.side]]
        source, target = (other, own) if direction == "read" else (own, other)
        return PairReport(from_=source, to=target, memory=self.own.memory, direction=direction)

    def _reports(self, moves: list[Move], lines: list[str]) -> tuple[PairReport, ...]:
        reader = read(lines, source=f"UCX on {self.names[self.side]}")
        rates = (self.own.line_gigabits_per_s, self.peer.line_gigabits_per_s)
        line = min((rate for rate in rates if rate), default=None)
        return tuple(pair_report(self._base(move.direction), move, reader, self.floor(), line) for move in moves)

    def _row(self, pair: PairReport) -> Check:
        target = f"{pair.from_} -> {pair.to} ({pair.direction})"
        why = (pair.error,) if pair.error else ()
        return pair_row(pair, self.floor(), target=target, why=why, fix=pair.fix)

    def _failed(self, own: Ready, peer: Ready) -> tuple[PairReport, ...]:
        """The pair of a node that made no transfer."""
        broken, side = (own, self.side) if own.error else (peer, OTHER[self.side])
        cause = f"NIXL does not start on {self.names[side]}: {broken.error}"
        base = self._base("read")
        return (PairReport(from_=base.from_, to=base.to, memory=base.memory, error=cause, fix=broken.fix),)

    def _conclude(self, own: Found, peer: Found) -> Report:
        listen, connect = (own, peer) if self.side == "listen" else (peer, own)
        ucx: tuple[UcxLibrary, ...] = (*listen.ucx, *connect.ucx)
        return conclude(
            required=self._required(),
            needed=self._needed(),
            checks=(*listen.checks, *connect.checks),
            pairs=(*connect.pairs, *listen.pairs),
            ucx=ucx,
            hostname=self.names[self.side],
            peer=self.names[OTHER[self.side]],
        )


def _of(node: str, row: Check) -> Check:
    """The row with its node before its target."""
    return msgspec.structs.replace(row, target=f"{node} {row.target}")
