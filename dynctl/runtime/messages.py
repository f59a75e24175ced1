"""What the supervisor and its viewers tell each other over the control socket: JSON lines, one tagged object each."""

from __future__ import annotations

import msgspec

from dynctl.frontend.messages import Hello, Report
from dynctl.nodes.failed import Failed
from dynctl.plan.values import Plan
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


class Restart(msgspec.Struct, frozen=True, kw_only=True, tag="restart", tag_field="op"):
    """Restart these, one after the other, or every process; each gets `drain_s` seconds for its requests to end."""

    processes: tuple[str, ...] = ()
    drain_s: float = 30.0


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain", tag_field="op"):
    """Take a worker out of the frontend, and tell when nothing is in flight there, or `drain_s` seconds are over."""

    process: str
    drain_s: float = 30.0


class Undrain(msgspec.Struct, frozen=True, kw_only=True, tag="undrain", tag_field="op"):
    """Take a drained worker in again."""

    process: str


class Scale(msgspec.Struct, frozen=True, kw_only=True, tag="scale", tag_field="op"):
    """Make `plan` the run's: workers that it names besides come, or those that it does not name go, not both.

    `topology`: what the plan is made from, as JSON; those that go get `drain_s` seconds for their requests to end.
    """

    plan: Plan
    topology: str
    drain_s: float = 30.0


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done", tag_field="op"):
    """An operation has ended: what was done, or why it was not."""

    said: str = ""
    failed: Failed | None = None


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


OnNodes = Restart | Drain | Undrain
Operation = OnNodes | Scale
ToSupervisor = Attach | AskStatus | Down | Operation | Hello | Report
FromSupervisor = Happened | StatusNow | Ready | Failed | Gone | Done


def encode(message: msgspec.Struct) -> bytes:
    """One line."""
    return msgspec.json.encode(message) + b"\n"


def to_supervisor(line: bytes) -> ToSupervisor:
    """Decodes what a viewer or frontend said; msgspec.DecodeError if it is not of this protocol."""
    found: ToSupervisor = msgspec.json.decode(line, type=ToSupervisor)
    return found


def from_supervisor(line: bytes) -> FromSupervisor:
    """Decodes what the supervisor said; msgspec.DecodeError if it is not of this protocol."""
    found: FromSupervisor = msgspec.json.decode(line, type=FromSupervisor)
    return found
