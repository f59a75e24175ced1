"""`dynctl up`: plan, preflight, launch the supervisor, and watch it until ready or for as long as the user looks on."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from dynctl.cli import choose
from dynctl.counted import counted
from dynctl.errors import RunStateError, UsageError
from dynctl.plan.resolve import resolve
from dynctl.plan.values import Plan
from dynctl.preflight import model
from dynctl.preflight.frontend_files import check_frontend_files
from dynctl.preflight.gather import gather
from dynctl.preflight.path import check_path
from dynctl.preflight.planes import check_planes, refuse_shared_namespace
from dynctl.preflight.secret import load_secret
from dynctl.preflight.this_node import find_node
from dynctl.runtime.client import Connection
from dynctl.runtime.launch import adopt, already_running, is_unsupervised, launch, refuse_leftovers, still_alive
from dynctl.runtime.leftovers import Leftovers
from dynctl.runtime.orphans import orphans
from dynctl.store import paths
from dynctl.store.run import TOPOLOGY_FILE, RunStore, is_supervised, known_runs, planning_lock, write_private
from dynctl.topology.base import fits_as_name
from dynctl.topology.load import as_json
from dynctl.topology.schema import Topology

RECLAIM_GRACE_S = 10.0
"""What never served has nothing in flight."""


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `up` was asked for besides the topology. `verify` None: on for builtin:tiny, off for real models."""

    detach: bool = False
    verify: bool | None = None
    verbose: bool = False
    json: bool = False
    no_color: bool = False
    sample: bool = False
    preflight: bool = True
    node: str | None = None
    ssh: bool = False
    ssh_dynctl: str | None = None


def up(file: str | None, sets: list[str], options: UpOptions) -> int:
    """Starts the deployment; the exit code is that of the run's start, or of the whole run in the foreground."""
    if options.ssh:
        from dynctl.cli.ssh_up import up_by_ssh

        return up_by_ssh(_path(file), sets, options)
    if options.ssh_dynctl:
        raise UsageError("--ssh-dynctl says where dynctl is on the nodes of --ssh", fix="add --ssh, or leave it out")
    named = RunStore(file) if file and not Path(file).exists() else None
    if named and not sets and is_unsupervised(named):
        return _adopt(named, options)
    topology = _topology(file, sets)
    if is_unsupervised(RunStore(topology.name)):
        return _adopt(RunStore(topology.name), options, topology)
    node = find_node(topology, options.node)
    secret = load_secret(topology)
    preflight = check(topology, options, node)
    from dynctl.cli.watch import Watch

    plan, connection = begin(topology, options, node, secret, preflight)
    return Watch(plan, connection, options).run()


def check(topology: Topology, options: UpOptions, node: str | None) -> str | None:
    """Everything that can be known before a start; what the preflight found, None without one."""
    _refuse_running(topology.name)
    return _prepare(topology, options, node)


def begin(
    topology: Topology, options: UpOptions, node: str | None, secret: str | None, preflight: str | None
) -> tuple[Plan, Connection]:
    """Plans and launches: the plan, and the starter's connection to its supervisor."""
    with planning_lock():
        # looked at again under the lock: preparing a model may take minutes, ports do not wait
        plan = resolve(topology, gather(topology, node=node), verify=options.verify)
        plan = msgspec.structs.replace(plan, preflight=preflight)
        refuse_shared_namespace(plan)
        connection = launch(plan, requests=options.verbose or options.sample, secret=secret)
        _keep_topology(plan, topology)
    return plan, connection


def _adopt(store: RunStore, options: UpOptions, topology: Topology | None = None) -> int:
    """Takes over a run that serves without a supervisor. RunStateError where another `topology` was asked for."""
    from dynctl.cli.watch import Watch

    if topology and _kept_topology(store) != as_json(topology).encode():
        raise RunStateError(
            f"the run `{store.name}` is unsupervised, and was started from another topology",
            where=str(store.dir / TOPOLOGY_FILE),
            fix=f"`dynctl up {store.name}` adopts it as it is; `dynctl down {store.name}` ends it",
        )
    plan = store.plan()
    if options.node not in (None, plan.node):
        raise UsageError(
            f"the run `{store.name}` is unsupervised, and is not of node {options.node} here",
            where="--node",
            why=f"it is node {plan.node}" if plan.nodes else "it is of one node",
            fix=f"`dynctl up {store.name}` adopts it as it is",
        )
    _say(f"`{store.name}` serves without a supervisor: adopting it")
    return Watch(plan, adopt(store, requests=options.verbose or options.sample), options).run()


def _topology(file: str | None, sets: list[str]) -> Topology:
    return choose.topology(_path(file) if file else None, sets)


def _path(file: str | None) -> Path:
    """FILE, or the topology that a known run of that name was started with; ./topology.yaml by default."""
    if file is None:
        return choose.DEFAULT_FILE
    if not Path(file).exists() and file in {store.name for store in known_runs()}:
        kept = RunStore(file).dir / TOPOLOGY_FILE
        if kept.is_file():
            return kept
    if not Path(file).exists() and fits_as_name(file):
        raise UsageError(
            f"there is no file `{file}`, and no run of that name is known on this machine",
            why=f"known runs: {', '.join(store.name for store in known_runs()) or 'none'}",
            fix="`dynctl up FILE` starts a topology file, `dynctl init` writes one",
        )
    return Path(file)


def _refuse_running(name: str) -> None:
    paths.private_dir(paths.state_root())
    if is_supervised(name):
        raise already_running(name)
    for orphan in orphans(name):
        if not orphan.store.was_ready(orphan.run_id):
            done = orphan.reclaim(RECLAIM_GRACE_S)
            if done.processes:
                ended = counted(done.processes, "process")
                _say(f"reclaimed {ended} of an earlier start of `{name}` that nobody supervises")
        elif left := Leftovers(orphan.run_id, orphan.store).processes():  # it can't be adopted: its record is damaged
            raise still_alive(name, left)
        else:
            orphan.reclaim(0.0)  # all of it was killed at once: files and shared memory may be left
    refuse_leftovers(RunStore(name))


def _prepare(topology: Topology, options: UpOptions, node: str | None) -> str | None:
    """Plans once and tries the KV path, so that every error comes before anything is fetched; gets the model.

    What the preflight found, None without one.
    """
    check_frontend_files(topology, node)
    facts = gather(topology, node=node)
    plan = resolve(topology, facts, verify=options.verify)
    if options.verify and not topology.disaggregated:
        raise UsageError(
            "--verify compares prefill -> decode with decode alone; this topology is aggregated",
            where="roles",
            fix="leave --verify out",
        )
    check_planes(plan, _say)
    note = check_path(plan, facts.hardware, _say if sys.stderr.isatty() else _silent) if options.preflight else None
    model.prepare(topology.model, facts.engine.python, _say)
    return note


def _keep_topology(plan: Plan, topology: Topology) -> None:
    """The topology as JSON (which is YAML), so that `up NAME` can start the run again."""
    write_private(Path(plan.run_dir) / TOPOLOGY_FILE, as_json(topology).encode())


def _kept_topology(store: RunStore) -> bytes | None:
    try:
        return store.topology()
    except RunStateError:
        return None


def _silent(_line: str) -> None:
    """Off a terminal there is one line per event, and what the preflight found becomes one."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
