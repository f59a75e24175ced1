"""`dynctl validate`, `plan`, `schema`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dynctl.cli import choose
from dynctl.counted import counted
from dynctl.plan.values import CLASS_ORDER, Plan

if TYPE_CHECKING:
    from dynctl.errors import HostError
    from dynctl.hardware.values import Hardware
    from dynctl.topology.schema import Topology


def validate(file: Path | None, sets: list[str], hardware: Path | None = None) -> int:
    """Checks the file alone, nothing of this machine; with `hardware` also that it can be planned on that machine."""
    if hardware is None:
        topology = choose.topology(file, sets)
        print(f"{topology.name}: valid", file=sys.stderr)  # noqa: T201
        return 0
    made, _ = plan_of(file, sets, hardware)
    pairs = [pair.path for pair in made.transport.pairs]
    path = f", KV over {max(pairs, key=CLASS_ORDER.index)}" if pairs else ""
    gpus = len({gpu for process in made.processes for gpu in process.gpus})
    placed = f"{counted(len(made.workers()), 'worker')} on {counted(gpus, 'GPU')}"
    print(f"{made.name}: valid; fits {hardware}: {placed}{path}", file=sys.stderr)  # noqa: T201
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
    return 0


def schema() -> int:
    """The topology's JSON schema."""
    from dynctl.topology.load import json_schema

    print(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())  # noqa: T201
    return 0


def plan(
    file: Path | None,
    sets: list[str],
    hardware: Path | None = None,
    *,
    as_json: bool,
    explain: bool = False,
    node: str | None = None,
) -> int:
    """What `up` would do, here or on the machine that `hardware` describes; `explain`: and why it sits there."""
    made, here = plan_of(file, sets, hardware, node)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(made), indent=1).decode())  # noqa: T201
        return 0
    from dynctl.ui.plan import plan_text

    print(plan_text(made, shutil.get_terminal_size().columns, explain=explain, here=here))  # noqa: T201
    return 0


def plan_of(file: Path | None, sets: list[str], hardware: Path | None, asked: str | None = None) -> tuple[Plan, bool]:
    """The plan without its secrets, and whether it is this host's own.

    A host that is none of a topology's nodes sees the plan of `asked`, or of the frontend's node, by its snapshot.
    """
    from dynctl.plan import redact
    from dynctl.plan.resolve import resolve
    from dynctl.preflight.gather import gather
    from dynctl.preflight.this_node import NotHere, find_node

    machine = _machine(hardware)
    topology = choose.topology(file, sets, machine)
    here = machine is None
    try:
        node = find_node(topology, asked)
    except NotHere as error:
        node, here = asked or topology.frontend_node or "", False
        machine = machine or _snapshot(topology, node, error)
    made, _ = redact.split(resolve(topology, gather(topology, machine, node)))
    return made, here


def _snapshot(topology: Topology, node: str, error: HostError) -> Hardware | None:
    """The hardware of a node that is elsewhere; the error, with what is missing, where the file names none."""
    named = topology.nodes[node].hardware
    if named is None:
        error.fix = (
            f"plan it there; or here with a snapshot of it: `dynctl hardware --json` there, "
            f"then `nodes.{node}.hardware` or `--hardware FILE`"
        )
        raise error
    return _machine(Path(named))


def _machine(file: Path | None) -> Hardware | None:
    if file is None:
        return None
    from dynctl.hardware import imports  # most plans are for the machine itself

    return imports.load(file)
