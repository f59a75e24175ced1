"""What the supervisor and its viewers tell each other over the control socket: JSON lines, one tagged object each."""

from __future__ import annotations

import msgspec

from dynctl.frontend.messages import Hello, Report
from dynctl.nodes.failed import Failed
from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus

MAX_LINE_BYTES = 1 << 24


class Attach(msgspec.Struct, frozen=True, kw_only=True, tag="attach", tag_field="op"):
    """Watch the run. A `starter` that goes away before the run is ready ends it; `requests` asks for request events."""

    starter: bool = False
    requests: bool = False


class AskStatus(msgspec.Struct, frozen=True, kw_only=True, tag="status", tag_field="op"):
    """One status, then the connection may end."""


class Down(msgspec.Struct, frozen=True, kw_only=True, tag="down", tag_field="op"):
    """End the run: drain for at most `grace_s` seconds, or kill at once with `now`; `everywhere`: on all its nodes."""

    grace_s: float = 30.0
    now: bool = False
    everywhere: bool = False


class Happened(msgspec.Struct, frozen=True, kw_only=True, tag="event", tag_field="op"):
    """An event of the run."""

    event: Event


class StatusNow(msgspec.Struct, frozen=True, kw_only=True, tag="status", tag_field="op"):
    """The run's status."""

    status: RunStatus


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready", tag_field="op"):
    """Every gate is open."""


class Gone(msgspec.Struct, frozen=True, kw_only=True, tag="gone", tag_field="op"):
    """The run has ended. `survivors` names processes that could not be ended.

    `open_ends`: what is to be said of other nodes that were asked to end, too, and did not say that they have.
    """

    survivors: tuple[str, ...] = ()
    open_ends: tuple[str, ...] = ()


ToSupervisor = Attach | AskStatus | Down | Hello | Report
FromSupervisor = Happened | StatusNow | Ready | Failed | Gone


def encode(message: msgspec.Struct) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"


def to_supervisor(line: bytes) -> ToSupervisor:
    """Decodes what a viewer or frontend said; msgspec.DecodeError if it is not of this protocol."""
    return msgspec.json.decode(line, type=ToSupervisor)  # type: ignore[no-any-return]


def from_supervisor(line: bytes) -> FromSupervisor:
    """Decodes what the supervisor said; msgspec.DecodeError if it is not of this protocol."""
    return msgspec.json.decode(line, type=FromSupervisor)  # type: ignore[no-any-return]
