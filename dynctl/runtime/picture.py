"""The run as others see it: the status document, its reason in words, and the frontend's table of workers."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Protocol

from dynctl.engines.spec import ProcessSpec
from dynctl.errors import DynctlError
from dynctl.frontend.messages import WorkerEntry, WorkerState, WorkerTable
from dynctl.nodes.messages import HeadWord
from dynctl.plan.values import Plan
from dynctl.runtime.observer import Observer
from dynctl.runtime.proving import Proving
from dynctl.store.run import RunRecord
from dynctl.telemetry.status import (
    NodeStatus,
    ProcessState,
    ProcessStatus,
    RunState,
    RunStatus,
    SupervisorStatus,
)
from dynctl.telemetry.summary import run_transport


class Shown(Protocol):
    """A process of this node or of another."""

    @property
    def id(self) -> str:
        """Its id in the plan."""

    @property
    def spec(self) -> ProcessSpec:
        """Its plan."""

    @property
    def state(self) -> ProcessState:
        """Its state."""

    def status(self) -> ProcessStatus:
        """Its row."""


class Others(Protocol):
    """The other nodes of the run."""

    def away(self) -> list[str]:
        """Why nodes take no part, one line each."""

    def word(self) -> HeadWord | None:
        """What the frontend's node says; None on that node itself, and while it is away."""

    def head_state(self) -> RunState | None:
        """The run's state as the frontend's node sees it."""

    def head_reason(self) -> str | None:
        """Its reason for that."""

    def rows(self) -> dict[str, NodeStatus]:
        """Each of them as seen from here."""


class Picture:
    """Draws what it is given, changes nothing. `was_ready`: every gate was open once; `failure`: why the run ends.

    `own`: ids of this node's processes. `others`: the other nodes, where there are any. `absent`: servers that are not
    the run's own and do not answer, in words.
    """

    def __init__(
        self,
        plan: Plan,
        record: RunRecord,
        processes: Mapping[str, Shown],
        proving: Proving,
        observer: Observer,
        others: Others | None = None,
    ) -> None:
        self._plan, self._record, self._processes = plan, record, processes
        self._proving, self._observer, self._others = proving, observer, others
        self._own = {spec.id for spec in plan.own()}
        self._passing: frozenset[str] = frozenset()
        self.was_ready = False
        self.troubles: tuple[str, ...] = ()
        self.absent: tuple[str, ...] = ()
        self.failure: DynctlError | None = None

    def follow(self, plan: Plan, passing: Collection[str] = ()) -> None:
        """The plan is another now. `passing`: workers that join or leave the run, by which it is not judged."""
        self._plan, self._passing = plan, frozenset(passing)
        self._own = {spec.id for spec in plan.own()}

    def status(self, state: RunState) -> RunStatus:
        """The status document of a run in that state."""
        plan = self._plan
        word = self._others.word() if self._others else None
        pairs = word.pairs if word else self._proving.proven()
        return RunStatus(
            name=plan.name,
            state=state,
            reason=self.reason(state),
            started_at=self._record.started_at,
            served_name=plan.served_name,
            supervisor=SupervisorStatus(pid=None if state in {"stopped", "failed"} else os.getpid()),
            frontend=word.frontend if word else self._observer.frontend(),
            processes=tuple(process.status() for process in self._processes.values()),
            transport=run_transport(plan.transport.required, pairs),
            ttft_ms=word.ttft_ms if word else self._observer.ttft(),
            verify=word.verify if word else self._proving.verification,
            slo_ms={"ttft": plan.slo.ttft_ms, "itl": plan.slo.itl_ms},
            warnings=(*self.troubles, *plan.warnings),
            nodes=self._nodes(state),
        )

    def judged(self, state: RunState) -> RunState:
        """The state of the whole from that of the processes: other nodes may be away, or know better.

        vllm-router may fail requests although every process is well.
        """
        silent = self._plan.router == "vllm-router" and self._observer.frontend().health == "down"
        if state == "ready" and (self.absent or silent):
            return "degraded"
        if state != "ready" or not self._others:
            return state
        known = self._others.head_state()
        return "degraded" if self._others.away() or known not in (None, "ready") else "ready"

    def states(self) -> list[ProcessState]:
        """States by which this node is judged: all on the frontend's node, which knows, else its own."""
        return [
            p.state
            for p in self._processes.values()
            if (p.id in self._own or "frontend" in self._own) and p.id not in self._passing
        ]

    def reason(self, state: RunState) -> str | None:
        """Why the run is in that state, where there is something to say."""
        if self.failure:
            return self.failure.cause
        away = self._others.away() if self._others else []
        if not self.was_ready:
            return "; ".join(away) or None
        if state != "degraded":
            return None
        gone = [p for p in self._processes.values() if p.state != "ready" and p.id not in self._passing]
        named = [
            *self.absent,
            *away,
            *(f"{p.id} is {p.state}" for p in gone if p.state != "unhealthy" or p.id in self._own),
        ]
        if not named and self._others and (why := self._others.head_reason()):
            named = [f"by node {self._plan.process('frontend').node}: {why}"]
        pool = {process.spec.role for process in gone}
        all_prefills = [p for p in self._processes.values() if p.spec.role == "prefill"]
        text = ", ".join(named)
        if "prefill" in pool and all(process.state != "ready" for process in all_prefills):
            alone = "decode serves alone" if self._plan.router == "builtin" else "no request is served"
            return f"{text}: no prefill worker is left, {alone}"
        return text or self._observer.frontend().reason

    def own_reason(self, state: RunState) -> str | None:
        """What this node has to say of its own part: why it fails or does not serve, or what it does in its start."""
        if self.failure:
            return self.failure.cause
        rows = [(p.id, p.status()) for p in self._processes.values() if p.id in self._own and p.state != "ready"]
        if "frontend" in self._own or state != "starting":
            rows = [row for row in rows if row[0] != "frontend" or len(rows) == 1]
        return ", ".join(f"{name}: {row.phase or row.state}" for name, row in rows[:4]) or None

    def word(self, *, ready: bool, proven: dict[str, str], proving: tuple[str, ...]) -> HeadWord:
        """What the frontend's node tells the others of the whole."""
        return HeadWord(
            ready=ready,
            proven=proven,
            proving=proving,
            busy={
                p.id: self._observer.busy(p.id)
                for p in self._processes.values()
                if p.id not in self._own and p.state == "draining"
            },
            pairs=self._proving.proven(),
            frontend=self._observer.frontend(),
            ttft_ms=self._observer.ttft(),
            verify=self._proving.verification,
        )

    def table(self, serving: Collection[str]) -> WorkerTable:
        """The workers as the frontend should take them. `serving`: ids whose own gates are open."""
        roles: dict[str, int] = {}
        for spec in self._plan.workers():
            roles[spec.role] = roles.get(spec.role, 0) + (spec.id not in self._passing)
        rows = self._others.rows() if self._others else {}
        lost = {name for name, row in rows.items() if row.state == "lost"}
        entries = tuple(self._entry(self._processes[spec.id], serving, lost) for spec in self._plan.workers())
        return WorkerTable(workers=entries, expected=roles)

    def _nodes(self, state: RunState) -> tuple[NodeStatus, ...]:
        if not self._others:
            return ()
        rows = self._others.rows()
        for node in self._plan.nodes:
            if node.name == self._plan.node:
                why = self.own_reason(state)
                own = NodeStatus(
                    name=node.name, address=node.address, state=state, age_s=0.0, reason=why, heard=state, here=True
                )
                rows[node.name] = own
        return tuple(rows[node.name] for node in self._plan.nodes)

    def _entry(self, process: Shown, serving: Collection[str], lost: Collection[str]) -> WorkerEntry:
        answers = process.id in serving and process.state in {"starting", "loading", "ready"}
        ready = process.state == "ready" and self.was_ready
        state: WorkerState = "ready" if ready else "proving" if answers else "down"
        if process.state == "draining" or process.state == "unhealthy":
            state = process.state
        role = process.spec.role
        assert role != "frontend"  # noqa: S101 - plan.workers() has none
        assert role != "control"  # noqa: S101 - nor of these
        return WorkerEntry(
            id=process.id,
            role=role,
            url=process.spec.probes.url or "",
            state=state,
            lost=bool(lost) and not self._plan.places(process.id).isdisjoint(lost),
        )
