"""What two nodes say to each other after the handshake, in this order: Node, Ready, (Offered, Turned) twice, Found."""

from __future__ import annotations

import msgspec

from dynctl.fabric.report import Check, Memory, PairReport, UcxLibrary

NOTHING = msgspec.Raw(b"null")


class Node(msgspec.Struct, frozen=True, kw_only=True, tag="node"):
    """What one node tells of itself. `own_address`, `peer_address`: the connection's ends as it sees them.

    `observed`: what its checks saw, as JSON. `agreed`: what nodes of one file must have the same, by name.
    """

    hostname: str
    required: str
    memory: Memory
    own_address: str
    peer_address: str
    rdma: bool = False
    size_bytes: int | None = None
    both: bool = False
    line_gigabits_per_s: float | None = None
    observed: msgspec.Raw = NOTHING
    agreed: dict[str, str] = {}


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """That the node's agent runs, or why it does not."""

    error: str | None = None
    fix: str | None = None
    ucx: tuple[UcxLibrary, ...] = ()


class Offered(msgspec.Struct, frozen=True, kw_only=True, tag="offered"):
    """Memory for the other to read and write, in words that only agents understand; or why there is none."""

    metadata: str = ""
    descs: str = ""
    name: str = ""
    error: str | None = None


class Turned(msgspec.Struct, frozen=True, kw_only=True, tag="turned"):
    """That a turn is over. `written_bytes`: how much of the other's memory holds the sender's pattern now."""

    written_bytes: int = 0


class Found(msgspec.Struct, frozen=True, kw_only=True, tag="found"):
    """What a node found: rows about itself and its network, and the transfers that it made."""

    checks: tuple[Check, ...] = ()
    pairs: tuple[PairReport, ...] = ()
    ucx: tuple[UcxLibrary, ...] = ()


class Trouble(msgspec.Struct, frozen=True, kw_only=True, tag="trouble"):
    """Why the sender goes, in the place of any other message."""

    cause: str
    fix: str | None = None
