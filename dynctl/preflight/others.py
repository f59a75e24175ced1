"""Ports of other runs of this host: planned, and so not to be had, whether they are bound at this moment or not."""

from __future__ import annotations

from pathlib import Path

import psutil

from dynctl.environ import RUN_ID_VARIABLE
from dynctl.errors import RunStateError
from dynctl.store.run import SPAWNED_FILE, RunStore, is_supervised, known_runs


def planned_by_others(name: str) -> dict[int, str]:
    """Those of all live runs but the one of that name, and who has them, in words."""
    found: dict[int, str] = {}
    for run in known_runs():
        if run.name != name:
            found |= planned_by(run.name)
    return found


def planned_by(name: str) -> dict[int, str]:
    """Those of a run's processes on this host, while it is supervised, or serves on without a supervisor.

    A worker that died without one holds none of its ports, and gets them back when the run is adopted.
    """
    store = RunStore(name)
    try:
        if not is_live(store):
            return {}
        plan = store.plan()
    except RunStateError:
        return {}  # its files are damaged: what it listens on is found taken, and no more can be known
    found = {node.control_port: f"run `{name}`" for node in plan.nodes if node.name == plan.node}
    for process in plan.own():
        found |= dict.fromkeys(process.ports.values(), f"run `{name}` ({process.id})")
    return found


def is_live(store: RunStore) -> bool:
    """Whether the run is supervised, or serves on without a supervisor."""
    return is_supervised(store.name) or _serves(store)


def _serves(store: RunStore) -> bool:
    """Whether a process of the run is alive here, though nobody supervises it."""
    if not (store.dir / SPAWNED_FILE).exists() or not store.exists():
        return False  # it has ended in order
    record = store.record()
    return record.elsewhere() is None and any(_is_marked(pid, record.run_id) for pid in psutil.pids())


def _is_marked(pid: int, run_id: str) -> bool:
    try:
        return f"{RUN_ID_VARIABLE}={run_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
