"""What the starter and a node tell each other over ssh's stdin and stdout: JSON lines, one tagged object each. Pure.

The node speaks first (`Here`). It gets `Check` with everything it needs to know, looks without starting anything, and
says `Checked` or why not (`Failed`). Once every node has, each gets `Go`; from then on it passes its supervisor's
messages on. The end of its stdin, or a long silence there, means that the starter is gone: the node ends its part.
"""

from __future__ import annotations

import msgspec

from dynctl.nodes.failed import Failed
from dynctl.runtime.messages import MAX_LINE_BYTES, Done, Gone, Happened, Ready, StatusNow, encode

__all__ = ["MAX_LINE_BYTES", "encode", "from_node", "to_node"]

FIRST = b'{"op":"here"'
"""How a node's first line begins: before it a login shell may have printed anything."""
ALIVE_S = 10.0
"""The starter says something at least as often as this."""
SILENT_S = 60.0
"""A starter that says nothing for as long is lost."""


class Here(msgspec.Struct, frozen=True, kw_only=True, tag="here", tag_field="op"):
    """A node's dynctl: its version, a digest of its code, the command that was found, and its host's name."""

    version: str
    code: str
    command: str
    host: str


class Check(msgspec.Struct, frozen=True, kw_only=True, tag="check", tag_field="op"):
    """Look whether you could be this node of the topology in `text`, and start nothing.

    `source`, `base`, `cwd`: the file's name, its directory and the directory of the command where it was typed, so
    that lines and relative paths mean the same. `secret`: what the nodes share, for a node without the `secret_file`.
    """

    node: str
    text: str
    source: str
    base: str
    cwd: str
    sets: tuple[str, ...] = ()
    secret: str | None = None
    verify: bool | None = None
    preflight: bool = True
    requests: bool = False

    def __repr__(self) -> str:
        return f"Check(node={self.node!r})"  # without the secret


class Checked(msgspec.Struct, frozen=True, kw_only=True, tag="checked", tag_field="op"):
    """Nothing stands in the way of a start."""


class Go(msgspec.Struct, frozen=True, kw_only=True, tag="go", tag_field="op"):
    """Start."""


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag="alive", tag_field="op"):
    """The starter is still there."""


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end", tag_field="op"):
    """End your part: drain for at most `grace_s` seconds, or kill at once with `now`."""

    grace_s: float
    now: bool = False


class Leave(msgspec.Struct, frozen=True, kw_only=True, tag="leave", tag_field="op"):
    """The starter goes and the run stays."""


class Clear(msgspec.Struct, frozen=True, kw_only=True, tag="clear", tag_field="op"):
    """End what is left there of the run, whose part lost its starter: answered by `Gone`."""

    name: str


ToNode = Check | Clear | Go | Alive | End | Leave
FromNode = Here | Checked | Happened | StatusNow | Ready | Failed | Gone | Done


def to_node(line: bytes) -> ToNode:
    """Decodes what the starter said; msgspec.DecodeError if it is not of this protocol."""
    found: ToNode = msgspec.json.decode(line, type=ToNode)
    return found


def from_node(line: bytes) -> FromNode:
    """Decodes what a node said; msgspec.DecodeError if it is not of this protocol."""
    found: FromNode = msgspec.json.decode(line, type=FromNode)
    return found
