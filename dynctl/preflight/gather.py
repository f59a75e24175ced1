"""Gathers the facts a plan rests on: this machine or an imported one, the engine, the model, the ports."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import msgspec

from dynctl.environ import is_steering
from dynctl.errors import RunStateError
from dynctl.hardware.discover import discover
from dynctl.hardware.holders import KnownRun
from dynctl.hardware.values import Hardware
from dynctl.plan.facts import Facts
from dynctl.plan.machine import LOCAL
from dynctl.plan.ports import candidates, range_of
from dynctl.preflight import elsewhere, engine, model
from dynctl.preflight.others import planned_by, planned_by_others
from dynctl.preflight.ports import taken_ports
from dynctl.preflight.router import find_router
from dynctl.preflight.this_node import own_addresses
from dynctl.store import paths
from dynctl.store.run import is_supervised, known_runs
from dynctl.topology.node_spec import NodeSpec
from dynctl.topology.schema import Topology


def gather(topology: Topology, hardware: Hardware | None = None, node: str | None = None) -> Facts:
    """Looks everything up. Starts nothing, changes nothing. `hardware`: another machine, which is then planned for.

    `node`: which of the topology's nodes these are the facts of.
    """
    others = snapshots(topology, node)
    if hardware is not None:
        made = elsewhere.facts(topology, hardware, self_command())
        return msgspec.structs.replace(made, node=node or made.node, elsewhere=others)
    python = engine.find_python(topology.python, topology.engine)
    here = topology.nodes[node] if node else None
    return Facts(
        hardware=this_machine(),
        node=node or LOCAL,
        netdev=own_addresses()[here.address] if here else None,
        elsewhere=others,
        engine=engine.look_up(python),
        model=model.look_up(topology.model),
        run_dir=str(paths.run_dir(topology.name)),
        socket=str(paths.socket_path(topology.name)),
        dynctl=self_command(),
        router=find_router(topology),
        taken_ports=_taken(topology, here),
        ambient=tuple(sorted(name for name in os.environ if is_steering(name))),
    )


def snapshots(topology: Topology, node: str | None) -> dict[str, Hardware]:
    """The hardware of the other nodes, as far as the topology names files with it. UsageError for one that is wrong."""
    named = {name: spec.hardware for name, spec in topology.nodes.items() if spec.hardware and name != node}
    if not named:
        return {}
    from dynctl.hardware import imports

    # many nodes of one kind may share one file
    read = {path: imports.load(Path(path)) for path in dict.fromkeys(named.values())}
    return {name: read[path] for name, path in named.items()}


def _taken(topology: Topology, here: NodeSpec | None) -> dict[int, str]:
    planned = planned_by_others(topology.name)
    front = taken_ports([topology.frontend.port], planned)
    if here is None:
        taken = taken_ports(tuple(candidates(topology.name)), planned) | front
    else:
        taken = taken_ports(tuple(range_of(topology.name, here.ports)), planned, here.address) | front
    own = planned_by(topology.name)  # a run that goes on holds its own ports: they are no obstacle to its plan
    return {port: held for port, held in taken.items() if port not in own}


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
            if record.elsewhere() is None:
                found[record.run_id] = KnownRun(run.name, is_supervised(run.name))
    return found
