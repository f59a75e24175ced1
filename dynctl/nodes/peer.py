"""Another node as seen from this one: whether it was met, when it was last heard, what it said."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from dynctl.fabric.peer.link import SILENCE_S, Link
from dynctl.nodes.messages import Report
from dynctl.plan.values import PlannedNode
from dynctl.telemetry.status import NodeStatus, ProcessStatus


class Peer:
    """`trouble`: why it can't be met, in words, as long as it can't. Ages are by this node's monotonic clock."""

    def __init__(self, node: PlannedNode, clock: Callable[[], float] = time.monotonic) -> None:
        self.node, self._clock = node, clock
        self.link: Link | None = None
        self.run_id: str | None = None
        self.report: Report | None = None
        self.trouble: str | None = None
        self._heard_at: float | None = None

    @property
    def name(self) -> str:
        """Its name in the plan."""
        return self.node.name

    @property
    def met(self) -> bool:
        """Whether it was met, though it may be gone again."""
        return self.run_id is not None

    def take_link(self, link: Link, run_id: str) -> None:
        """It was met, or met again. What an earlier supervisor of it said does not count any longer."""
        if run_id != self.run_id:
            self.report = None
        self.link, self.run_id, self.trouble = link, run_id, None
        self._heard_at = self._clock()

    def lose_link(self, link: Link) -> None:
        """The connection is over; the node may be back before it counts as lost."""
        if self.link is link:
            self._heard_at, self.link = link.heard_at, None

    def take_report(self, report: Report, wall: float) -> None:
        """What it says now; `wall` is this node's clock, by which times of the other are put right."""
        skew_s = wall - report.now
        processes = tuple(_shifted(process, skew_s) for process in report.processes)
        self.report = msgspec.structs.replace(report, processes=processes)

    def age_s(self) -> float | None:
        """Seconds since it was last heard; None if never."""
        heard_at = self.link.heard_at if self.link else self._heard_at
        return None if heard_at is None else max(0.0, self._clock() - heard_at)

    def alive(self) -> bool:
        """Whether it takes part: heard a moment ago, and not on its way out."""
        age_s = self.age_s()
        return age_s is not None and age_s <= SILENCE_S and not (self.report and self.report.leaving)

    def why_not(self) -> str | None:
        """Why it takes no part, in words; None where it does."""
        age_s = self.age_s()
        if age_s is None:
            return f"node {self.name} is missing: {self.trouble or 'it has not called yet'}"
        if self.report and self.report.leaving:
            failed = self.report.failed
            return f"node {self.name} failed: {failed.cause}" if failed else f"node {self.name} has left"
        return f"node {self.name} is not heard for {age_s:.0f} s" if age_s > SILENCE_S else None

    def status(self) -> NodeStatus:
        """Its row in the status."""
        said, age_s, why = self.report, self.age_s(), self.why_not()
        prefix = f"node {self.name} is "
        heard = said.state if said else None
        state: str = heard or "starting"
        reason = said.reason if said else None
        if age_s is None:
            state, reason = "missing", (why or "").removeprefix(f"{prefix}missing: ")
        elif why and not (said and said.leaving):
            state, reason = "lost", why.removeprefix(prefix)
        if self.trouble and state == "lost":
            reason = f"{reason}; {self.trouble}"
        return NodeStatus(
            name=self.name,
            address=self.node.address,
            state=state,  # type: ignore[arg-type]
            age_s=None if age_s is None else round(age_s, 1),
            reason=reason,
            heard=heard,
        )


def _shifted(process: ProcessStatus, skew_s: float) -> ProcessStatus:
    return msgspec.structs.replace(
        process,
        since=None if process.since is None else process.since + skew_s,
        phase_since=None if process.phase_since is None else process.phase_since + skew_s,
    )
