"""`dynctl check-rdma`: looks at a node, proves the KV path of a topology, says what is wrong and how to mend it."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from dynctl.cli import between_nodes, choose, two_nodes
from dynctl.errors import UsageError
from dynctl.fabric.checks.judge import judge
from dynctl.fabric.checks.observe import observe
from dynctl.fabric.checks.values import Need, Since, WorkerNeed
from dynctl.fabric.conclude import combined, conclude
from dynctl.fabric.probe.prove import prove
from dynctl.fabric.report import Check, Report
from dynctl.fabric.sizes import parse_size
from dynctl.hardware.values import Hardware
from dynctl.nodes.meetings import Appointment, appointments
from dynctl.plan.facts import Facts
from dynctl.plan.resolve import resolve
from dynctl.plan.values import CLASS_ORDER, Plan, PlannedPair
from dynctl.preflight.gather import gather
from dynctl.preflight.secret import load_secret
from dynctl.preflight.this_node import find_node
from dynctl.replacing import replace
from dynctl.topology.durations import parse_duration
from dynctl.topology.schema import Topology
from dynctl.ui.check_progress import CheckProgress

T = TypeVar("T")
BY_UCX = frozenset({"tls", "netdev"})
"""Rows that the probe gives too: it asked UCX, and knows better than a look at the settings."""


class CheckOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `check-rdma` was asked for besides the topology, as it was typed."""

    require: str | None = None
    root: Path | None = None
    watch: str | None = None
    size: str | None = None
    both: bool = False
    json: bool = False
    report: Path | None = None
    listen: str | None = None
    peer: str | None = None
    token_file: Path | None = None
    no_color: bool = False
    node: str | None = None
    wait: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The same, understood: bytes, seconds, which end this is of two nodes, and how long another is waited for."""

    required: str
    size_bytes: int | None
    watch_s: float | None
    ends: two_nodes.Ends | None
    wait_s: float = between_nodes.WAIT_S


def check_rdma(file: Path | None, sets: list[str], options: CheckOptions) -> int:
    """The exit code: 0 ok, 4 not ok. DynctlError for a wrong command line, a host that can't try, or a lost peer."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _terminated)
    topology = choose.topology(file, [*sets, *([f"transport.require={options.require}"] if options.require else [])])
    asked = _understood(topology, options)
    page = _page_target(options.report)
    hardware: Hardware | None = None
    with CheckProgress(no_color=options.no_color) as progress:
        if options.root is not None:
            report = _tree(topology, options.root, asked, progress)
        else:
            key = two_nodes.token(asked.ends.side, options.token_file) if asked.ends else None
            facts = gather(topology, node=find_node(topology, options.node))
            hardware, plan = facts.hardware, plan_to_prove(topology, facts)
            meetings = tuple(at for at in appointments(topology, plan) if facts.node in (at.listener, at.dialer))
            if asked.ends and key:
                report = two_nodes.run(asked.ends, *key, _end(topology, plan, facts, asked, options), progress)
            elif meetings:
                report = _with_nodes(topology, plan, facts, asked, options, meetings, progress)
            else:
                report = _here(own_part(plan), hardware, asked, options, progress)
    report = msgspec.structs.replace(report, seconds=time.monotonic() - began)
    _show(report, options)
    if page:
        _write_page(page, report, hardware)
    return 0 if report.ok else 4


def _terminated(*_: object) -> NoReturn:
    """Unwinds, so that probes end with it; as pid 1 of a container it would not hear SIGTERM at all otherwise."""
    raise SystemExit(128 + signal.SIGTERM)


def _understood(topology: Topology, options: CheckOptions) -> Asked:
    ends = two_nodes.ends(options.listen, options.peer)
    if options.root is not None and ends:
        raise UsageError("--root reads a recorded node: it can't talk to a peer", where="--root")
    if options.token_file is not None and not ends:
        raise UsageError("--token-file is for --listen and --peer", where="--token-file")
    if options.root is not None and not options.root.is_dir():
        raise UsageError(f"there is no directory {options.root}", where="--root")
    return Asked(
        required=topology.transport.require,
        size_bytes=_parsed("--size", options.size, parse_size),
        watch_s=_parsed("--watch", options.watch, parse_duration),
        ends=ends,
        wait_s=_parsed("--wait", options.wait, parse_duration) or between_nodes.WAIT_S,
    )


def _parsed(option: str, text: str | None, parse: Callable[[str], T]) -> T | None:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"`{text}` {error}", where=option) from error


def plan_to_prove(topology: Topology, facts: Facts) -> Plan:
    """The plan as `up` would make it, but for what a check must not refuse: ports in use, a path that is too slow.

    Planned with `auto`, so that the path is seen as it is; what is required is held against it afterwards.
    """
    transport = topology.transport.model_copy(update={"require": "auto"})
    engine = msgspec.structs.replace(facts.engine, vllm=facts.engine.vllm or "none")  # NIXL is all that is needed
    relaxed = msgspec.structs.replace(facts, taken_ports={}, engine=engine)
    return resolve(topology.model_copy(update={"transport": transport}), relaxed)


def own_part(plan: Plan) -> Plan:
    """The plan as if this node were alone: its processes, and the pairs among them."""
    own = {process.id for process in plan.own()}
    pairs = tuple(pair for pair in plan.transport.pairs if {pair.from_, pair.to} <= own)
    transport = msgspec.structs.replace(plan.transport, pairs=pairs)
    return msgspec.structs.replace(plan, processes=plan.own(), transport=transport)


def needed(plan: Plan, required: str) -> tuple[PlannedPair, ...]:
    """The pairs with the floor that each must meet: what is required, or with `auto` the best that each can have."""
    floor = next((word for word in CLASS_ORDER if word == required), None)
    pairs = plan.transport.pairs
    return tuple(msgspec.structs.replace(pair, floor=floor) for pair in pairs) if floor else pairs


def need(plan: Plan, hardware: Hardware, required: str) -> Need:
    """What the node's checks are held against: the fastest path that any pair must have, and each worker's devices."""
    addresses = {gpu.index: gpu.pci for gpu in hardware.gpus}
    floors = [pair.floor for pair in needed(plan, required)]
    return Need(
        path=min(floors, key=CLASS_ORDER.index, default="tcp"),
        workers=tuple(
            WorkerNeed(id=w.id, nics=w.nics, gpus=tuple(a for g in w.gpus if (a := addresses.get(g))), env=w.env)
            for w in plan.workers()
        ),
        has_gpu=hardware.has_gpu(),
    )


def _here(plan: Plan, hardware: Hardware, asked: Asked, options: CheckOptions, progress: CheckProgress) -> Report:
    """One node: its rows, and a transfer for each pair of the plan."""
    wanted = need(plan, hardware, asked.required)
    rows = judged(Path("/"), wanted, asked.watch_s, progress)
    pairs = needed(plan, asked.required)

    def moved(done: int, every: int, what: str) -> None:
        if done < every:
            progress.phase(f"proving {done + 1}/{every}: {what}" if ":" in what else what)

    proven, found, ucx = prove(
        plan,
        hardware,
        pairs=pairs,
        sizes=(asked.size_bytes,) if asked.size_bytes else None,
        both=options.both,
        progress=moved,
    )
    known = BY_UCX & {row.id for row in found}
    return conclude(
        required=asked.required,
        needed=pairs,
        checks=(*(row for row in rows if row.id not in known), *found),
        pairs=proven,
        ucx=ucx,
        hostname=hardware.hostname,
    )


def _tree(topology: Topology, root: Path, asked: Asked, progress: CheckProgress) -> Report:
    """A node's files recorded below `root`: rows alone, as no transfer can be made there."""
    progress.phase(f"reading {root}")
    observed = observe(root)
    path = next((word for word in CLASS_ORDER if word == asked.required), "rdma" if observed.devices else "tcp")
    rows = judge(observed, Need(path=path, has_gpu=bool(observed.gpus)))
    return conclude(required=asked.required, needed=(), checks=rows, pairs=(), hostname=observed.hostname)


def judged(root: Path, wanted: Need, watch_s: float | None, progress: CheckProgress) -> tuple[Check, ...]:
    """The node's rows; with `watch_s` those of its counters are judged by their growth meanwhile."""
    progress.phase("looking at this node")
    observed, since = observe(root, wanted), None
    if watch_s:
        progress.phase(f"watching error counters for {watch_s:g} s")
        time.sleep(watch_s)
        observed, since = observe(root, wanted), Since(earlier=observed, seconds=watch_s)
    return judge(observed, wanted, since)


def _with_nodes(
    topology: Topology,
    plan: Plan,
    facts: Facts,
    asked: Asked,
    options: CheckOptions,
    meetings: tuple[Appointment, ...],
    progress: CheckProgress,
) -> Report:
    """A node of several: the pairs that it has alone, then the path to each node that it shares a pair with."""
    secret = load_secret(topology)
    assert secret  # noqa: S101 - never without where there are two nodes
    known = between_nodes.Known(node=facts.node, run=topology.name, secret=secret, within_s=asked.wait_s)
    alone = own_part(plan)
    reports = [_here(alone, facts.hardware, asked, options, progress)] if alone.transport.pairs else []
    end = _end(topology, alone, facts, asked, options)
    reports.append(between_nodes.run(meetings, known, end, progress))
    return combined(reports, facts.node)


def _end(topology: Topology, plan: Plan, facts: Facts, asked: Asked, options: CheckOptions) -> two_nodes.Here:
    """This node's end of a proof between two."""
    return two_nodes.Here(
        python=facts.engine.python,
        worker=plan.workers()[0],
        hardware=facts.hardware,
        transport_env=dict(topology.transport.env),
        backend=topology.transport.backend,
        required=asked.required,
        size_bytes=asked.size_bytes,
        both=options.both,
        watch_s=asked.watch_s,
        node=plan.node if plan.nodes else None,
        agreed=plan.agreed,
    )


def _show(report: Report, options: CheckOptions) -> None:
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())  # noqa: T201
        return
    from dynctl.ui.check_text import check_text
    from dynctl.ui.terminal import console

    console(options.no_color).print(check_text(report, shutil.get_terminal_size().columns))


def _page_target(path: Path | None) -> Path | None:
    """Where the page goes: looked at before anything long is done."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        why = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}"
        raise UsageError(f"can't write {path}", where="--report", why=why)
    return path


def _write_page(path: Path, report: Report, hardware: Hardware | None) -> None:
    from dynctl.ui.check_page import check_page

    try:
        replace(path, check_page(report, hardware, time.time()).encode())
    except OSError as error:
        raise UsageError(f"can't write {path}", where="--report", why=error.strerror) from error
