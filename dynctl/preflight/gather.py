"""Gathers the facts a plan rests on: this machine or an imported one, the engine, the model, the ports."""

from __future__ import annotations

import contextlib
import os
import sys

from dynctl.environ import is_steering
from dynctl.errors import RunStateError
from dynctl.hardware.discover import discover
from dynctl.hardware.holders import KnownRun
from dynctl.hardware.values import Hardware
from dynctl.plan.facts import Facts
from dynctl.preflight import elsewhere, engine, model
from dynctl.preflight.ports import taken_ports
from dynctl.store import paths
from dynctl.store.run import is_supervised, known_runs
from dynctl.topology.schema import Topology


def gather(topology: Topology, hardware: Hardware | None = None) -> Facts:
    """Looks everything up. Starts nothing, changes nothing. `hardware`: another machine, which is then planned for."""
    if hardware is not None:
        return elsewhere.facts(topology, hardware, self_command())
    python = engine.find_python(topology.python, topology.engine)
    return Facts(
        hardware=this_machine(),
        engine=engine.look_up(python),
        model=model.look_up(topology.model),
        run_dir=str(paths.run_dir(topology.name)),
        socket=str(paths.socket_path(topology.name)),
        dynctl=self_command(),
        taken_ports=taken_ports(topology.name, [topology.frontend.port], _planned_by_others(topology.name)),
        ambient=tuple(sorted(name for name in os.environ if is_steering(name))),
    )


def this_machine() -> Hardware:
    """This machine, with the dynctl runs that hold its GPUs by name."""
    return discover(runs=_runs_by_id)


def self_command() -> tuple[str, ...]:
    """The argv prefix by which dynctl runs itself again: the frozen executable, or this interpreter with the module."""
    if getattr(sys, "frozen", False):
        return (sys.executable,)
    return (sys.executable, "-m", "dynctl")


def _runs_by_id() -> dict[str, KnownRun]:
    """The runs of this boot and pid namespace: of others no process can be here."""
    found: dict[str, KnownRun] = {}
    for run in known_runs():
        with contextlib.suppress(RunStateError):
            record = run.record()
            if (record.boot_id, record.pid_namespace) == (paths.boot_id(), paths.pid_namespace()):
                found[record.run_id] = KnownRun(run.name, is_supervised(run.name))
    return found


def _planned_by_others(name: str) -> dict[int, str]:
    """Ports of other live runs: planned, though perhaps not bound yet."""
    found: dict[int, str] = {}
    for run in known_runs():
        if run.name != name and is_supervised(run.name):
            for process in run.plan().processes:
                found |= dict.fromkeys(process.ports.values(), f"run `{run.name}` ({process.id})")
    return found
