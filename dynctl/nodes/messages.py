"""What the supervisors of a run's nodes tell each other once both have proven to know the run's secret. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

from dynctl.nodes.failed import Failed
from dynctl.nodes.parts import Part
from dynctl.nodes.seen import LogSeen
from dynctl.telemetry.status import (
    FrontendStatus,
    PairStatus,
    ProcessStatus,
    RunState,
    TtftStatus,
    VerifyStatus,
)

__all__ = ["Answer", "Ask", "AskEnd", "Errand", "ErrandDone", "FromPeer", "HeadWord", "Meet", "Report", "Unproven"]


class Meet(msgspec.Struct, frozen=True, kw_only=True, tag="meet"):
    """The first message each way: who speaks, and what it holds for the plan. `rdma`: it has an ACTIVE port for KV."""

    run: str
    node: str
    run_id: str
    digest: str
    agreed: dict[str, str] = {}
    rdma: bool = False


class HeadWord(msgspec.Struct, frozen=True, kw_only=True):
    """What only the frontend's node knows. `proven`: incarnations of workers whose pairs are proven, by process id.

    `busy`: how many requests the frontend has under way in workers of other nodes that are being drained.
    """

    ready: bool = False
    proven: dict[str, str] = {}
    proving: tuple[str, ...] = ()
    busy: dict[str, int] = {}
    pairs: tuple[PairStatus, ...] = ()
    frontend: FrontendStatus = FrontendStatus()
    ttft_ms: TtftStatus = TtftStatus()
    verify: VerifyStatus = VerifyStatus()


class Report(msgspec.Struct, frozen=True, kw_only=True, tag="report"):
    """The whole of what a node says of itself, sent once a second and when it changes.

    `now`: its wall clock in seconds, by which `since` of its processes is to be understood. `serving`: the incarnation
    of each of its processes whose own gates are open. `failed`: why it ends, where it does not end as asked; `origin`:
    the node at fault, where it is another one. `epochs`: which start of each worker that it leads over several nodes is
    wanted; `parts`: its parts of workers that other nodes lead.
    """

    now: float
    state: RunState
    reason: str | None = None
    processes: tuple[ProcessStatus, ...] = ()
    serving: dict[str, str] = {}
    epochs: dict[str, str] = {}
    parts: dict[str, Part] = {}
    leaving: bool = False
    failed: Failed | None = None
    origin: str | None = None
    ended: bool = False
    survivors: tuple[str, ...] = ()
    head: HeadWord | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True, tag="ask"):
    """What did the log of that process tell?"""

    number: int
    process: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    """The answer to the question of that number."""

    number: int
    seen: LogSeen


class AskEnd(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """End your part of the run, too: drain for at most `grace_s` seconds, or kill at once with `now`."""

    grace_s: float
    now: bool = False


class Unproven(msgspec.Struct, frozen=True, kw_only=True, tag="unproven"):
    """The frontend's node could not prove that start of a process of yours, for this reason: it has failed."""

    process: str
    incarnation: str
    failed: Failed


class Errand(msgspec.Struct, frozen=True, kw_only=True, tag="errand"):
    """What an operator asked for, `drain_s` as there. To the frontend's node: the whole; from it: one step, to be done.

    The frontend's node carries operations out: one at a time, so that no role is left without a worker.
    """

    number: int
    does: Literal["restart", "drain", "undrain"]
    processes: tuple[str, ...] = ()
    drain_s: float = 30.0
    step: bool = False


class ErrandDone(msgspec.Struct, frozen=True, kw_only=True, tag="errand done"):
    """It was done, and what is to be said of it; or why it was not."""

    number: int
    said: str = ""
    failed: Failed | None = None


FromPeer = Report | Ask | Answer | AskEnd | Unproven | Errand | ErrandDone
