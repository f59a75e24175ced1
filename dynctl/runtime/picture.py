"""The run as others see it: the status document, its reason in words, and the frontend's table of workers."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from dynctl.errors import DynctlError
from dynctl.frontend.messages import WorkerEntry, WorkerState, WorkerTable
from dynctl.plan.values import Plan
from dynctl.runtime.managed import Managed
from dynctl.runtime.observer import Observer
from dynctl.runtime.proving import Proving
from dynctl.store.run import RunRecord
from dynctl.telemetry.status import RunState, RunStatus, SupervisorStatus
from dynctl.telemetry.summary import run_transport


class Picture:
    """Draws what it is given, changes nothing. `was_ready`: every gate was open once; `failure`: why the run ends."""

    def __init__(
        self, plan: Plan, record: RunRecord, processes: Mapping[str, Managed], proving: Proving, observer: Observer
    ) -> None:
        self._plan, self._record, self._processes = plan, record, processes
        self._proving, self._observer = proving, observer
        self.was_ready = False
        self.failure: DynctlError | None = None

    def status(self, state: RunState) -> RunStatus:
        """The status document of a run in that state."""
        plan = self._plan
        return RunStatus(
            name=plan.name,
            state=state,
            reason=self.reason(state),
            started_at=self._record.started_at,
            served_name=plan.served_name,
            supervisor=SupervisorStatus(pid=None if state in {"stopped", "failed"} else os.getpid()),
            frontend=self._observer.frontend(),
            processes=tuple(process.status() for process in self._processes.values()),
            transport=run_transport(plan.transport.required, tuple(self._proving.pairs.values())),
            ttft_ms=self._observer.ttft(),
            verify=self._proving.verification,
            slo_ms={"ttft": plan.slo.ttft_ms, "itl": plan.slo.itl_ms},
            warnings=plan.warnings,
        )

    def reason(self, state: RunState) -> str | None:
        """Why the run is in that state, where there is something to say."""
        if self.failure:
            return self.failure.cause
        if not self.was_ready:
            return None
        gone = [process for process in self._processes.values() if process.state != "ready"]
        if state != "degraded" or not gone:
            return None
        named = ", ".join(f"{process.id} is {process.state}" for process in gone)
        pool = {process.spec.role for process in gone}
        all_prefills = [p for p in self._processes.values() if p.spec.role == "prefill"]
        if "prefill" in pool and all(process.state != "ready" for process in all_prefills):
            return f"{named}: no prefill worker is left, decode serves alone"
        return named

    def table(self, serving: Collection[str]) -> WorkerTable:
        """The workers as the frontend should take them. `serving`: ids whose own gates are open."""
        roles: dict[str, int] = {}
        for spec in self._plan.workers():
            roles[spec.role] = roles.get(spec.role, 0) + 1
        entries = tuple(self._entry(self._processes[spec.id], serving) for spec in self._plan.workers())
        return WorkerTable(workers=entries, expected=roles)

    def _entry(self, process: Managed, serving: Collection[str]) -> WorkerEntry:
        answers = process.id in serving and process.state in {"starting", "loading", "ready"}
        ready = process.state == "ready" and self.was_ready
        state: WorkerState = "ready" if ready else "proving" if answers else "down"
        if process.state == "draining" or process.state == "unhealthy":
            state = process.state
        role = process.spec.role
        assert role != "frontend"  # noqa: S101 - plan.workers() has none
        return WorkerEntry(
            id=process.id,
            role=role,
            url=process.spec.probes.url or "",
            state=state,
        )
