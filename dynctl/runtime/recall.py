"""A run without a supervisor, from what it left: stopped, failed, or unsupervised with processes alive."""

from __future__ import annotations

import contextlib

import msgspec
import psutil

from dynctl.environ import PROCESS_VARIABLE
from dynctl.plan.values import Plan
from dynctl.runtime.leftovers import Leftovers
from dynctl.store.run import RunStore
from dynctl.telemetry.status import NodeStatus, ProcessStatus, RunStatus, SupervisorStatus, TransportStatus


def live_processes(store: RunStore) -> list[psutil.Process]:
    """Processes of the run that are alive on this boot, in this pid namespace."""
    record = store.record()
    return [] if record.elsewhere() else Leftovers(record.run_id, store).processes()


def remembered_status(store: RunStore) -> RunStatus:
    """The status of a run that nobody supervises."""
    plan, alive = store.plan(), live_processes(store)
    last = _last_status(store)
    if not alive:
        if last:
            return last
        state, reason = "stopped", "its supervisor ended without a word"
    else:
        state, reason = "unsupervised", _without_supervisor(store)
    leaders = _leaders(alive)
    return RunStatus(
        name=plan.name,
        state=state,  # type: ignore[arg-type]
        reason=reason,
        started_at=store.record().started_at,
        served_name=plan.served_name,
        supervisor=SupervisorStatus(),
        processes=tuple(
            msgspec.structs.replace(
                ProcessStatus.planned(spec),
                pid=leaders.get(spec.id),
                state="ready" if spec.id in leaders else "stopped",
            )
            for spec in plan.own()
        ),
        transport=TransportStatus(required=plan.transport.required),
        warnings=plan.warnings,
        nodes=_nodes(plan, state),
    )


def _nodes(plan: Plan, state: str) -> tuple[NodeStatus, ...]:
    """Nobody here hears the other nodes."""
    return tuple(
        NodeStatus(name=node.name, address=node.address, state=state, age_s=0.0, here=True)  # type: ignore[arg-type]
        if node.name == plan.node
        else NodeStatus(name=node.name, address=node.address, reason="not heard without a supervisor here")
        for node in plan.nodes
    )


def _without_supervisor(store: RunStore) -> str:
    adopts = f"`dynctl up {store.name}` adopts the run, " if store.was_ready(store.record().run_id) else ""
    return f"its supervisor is gone; {adopts}`dynctl down {store.name}` ends what is left"


def _leaders(alive: list[psutil.Process]) -> dict[str, int]:
    """The lowest pid of each planned process: its session's leader was started first."""
    found: dict[str, int] = {}
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process_id = process.environ().get(PROCESS_VARIABLE)
            if process_id:
                found[process_id] = min(process.pid, found.get(process_id, process.pid))
    return found


def _last_status(store: RunStore) -> RunStatus | None:
    try:
        last = msgspec.json.decode((store.dir / "status.json").read_bytes(), type=RunStatus)
    except (OSError, msgspec.DecodeError):
        return None
    return last if last.started_at == store.record().started_at else None
