"""Another count of workers for a run: planned anew around those that run, which stay where they are. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from dynctl.engines.spec import SERVICES, ProcessSpec
from dynctl.errors import UsageError
from dynctl.hardware.values import Hardware
from dynctl.plan.facts import Facts
from dynctl.plan.resolve import resolve
from dynctl.plan.values import Plan
from dynctl.topology.roles import ROLE_NAMES
from dynctl.topology.schema import Topology

MOST_WORKERS = 1024


def parse_counts(words: list[str]) -> dict[str, int]:
    """Of `decode=2`, one or several. UsageError for what is not of that form."""
    counts: dict[str, int] = {}
    for word in words:
        role, _, count = word.partition("=")
        if not (role and count.isascii() and count.isdecimal() and len(count) < 6):
            raise UsageError(f"`{word[:60]}` is not of the form ROLE=N", fix="for example `dynctl scale decode=2`")
        if counts.setdefault(role, int(count)) != int(count):
            raise UsageError(f"{role[:60]} is given twice", fix="name each role once")
    if not counts:
        raise UsageError("say which role is to have how many workers", fix="for example `dynctl scale decode=2`")
    return counts


def check_counts(plan: Plan, counts: Mapping[str, int]) -> None:
    """UsageError for a role that the run does not have, or that it can't do without."""
    present = [role for role in ROLE_NAMES if any(process.role == role for process in plan.workers())]
    for role, count in counts.items():
        if role not in present:
            raise UsageError(
                f"`{plan.name}` has no workers of a role `{role[:60]}`", why=f"its roles: {', '.join(present)}"
            )
        if count < 1:
            raise UsageError(
                f"{role} can't go down to 0 workers",
                why="prefill alone serves nothing, and decode alone is another layout"
                if role != "worker"
                else "nothing would be served",
                fix=f"`dynctl drain` takes a worker out for a while, `dynctl down {plan.name}` ends the run",
            )
        if count > MOST_WORKERS:
            raise UsageError(f"{role}={count} is more than {MOST_WORKERS} workers")


def present_counts(plan: Plan) -> dict[str, int]:
    """Workers by role."""
    return Counter(process.role for process in plan.workers())


def rewritten(document: bytes, counts: Mapping[str, int]) -> str:
    """A run's topology, kept as JSON, with these counts. Seats chosen by hand go with the workers that had them."""
    data = json.loads(document)
    for role, count in counts.items():
        spec = data["roles"].get(role) or {}
        spec["workers"] = count
        if spec.get("pin") and len(spec["pin"]) > count:
            spec["pin"] = spec["pin"][:count]
        data["roles"][role] = spec
    return json.dumps(data)


def rescale(plan: Plan, topology: Topology, facts: Facts) -> Plan:
    """The plan of a run whose topology is now `topology`. UsageError, HostError or TransportError for what can't be.

    Workers of both plans are the same in both, except for whom they start `after`; so are pairs of them and the
    frontend. New ones get what these leave of GPUs, NICs, cores and ports. Ids are numbered without gaps: those with
    the highest numbers go, and who comes after them has their ids again.
    """
    wanted = {f"{role}-{index}" for role, spec in topology.roles.present() for index in range(spec.workers)}
    kept = {process.id: process for process in plan.workers() if process.id in wanted}
    services = {process.id: process for process in plan.processes if process.role in SERVICES}
    fresh = resolve(topology, _beside(plan, kept, facts), verify=plan.verify or None, kept={**services, **kept})
    _refuse_other_engine(plan, fresh, kept)
    pairs = {(pair.from_, pair.to): pair for pair in plan.transport.pairs}
    return msgspec.structs.replace(
        plan,
        processes=tuple(
            msgspec.structs.replace(kept[process.id], after=process.after)
            if process.id in kept
            else services[process.id]
            if process.role in SERVICES
            else process
            for process in fresh.processes
        ),
        transport=msgspec.structs.replace(
            plan.transport, pairs=tuple(pairs.get((pair.from_, pair.to), pair) for pair in fresh.transport.pairs)
        ),
    )


def without(plan: Plan, ids: Collection[str]) -> Plan:
    """The plan of the run when these processes are gone."""
    return msgspec.structs.replace(
        plan,
        processes=tuple(
            msgspec.structs.replace(process, after=tuple(one for one in process.after if one not in ids))
            for process in plan.processes
            if process.id not in ids
        ),
        transport=msgspec.structs.replace(
            plan.transport,
            pairs=tuple(pair for pair in plan.transport.pairs if pair.from_ not in ids and pair.to not in ids),
        ),
    )


def moved(plan: Plan, other: Plan) -> list[str]:
    """Ids of processes that both plans have, but not alike."""
    before = {process.id: process for process in plan.processes}
    return [
        process.id
        for process in other.processes
        if process.id in before
        and msgspec.structs.replace(before[process.id], after=()) != msgspec.structs.replace(process, after=())
    ]


def _beside(plan: Plan, kept: Mapping[str, ProcessSpec], facts: Facts) -> Facts:
    """The facts as if nothing of the run were there, except for the ports of the workers that stay."""
    own = {port for process in plan.processes for port in process.ports.values()}
    others = {port: holder for port, holder in facts.taken_ports.items() if port not in own}
    held = {port: process.id for process in kept.values() for port in process.ports.values()}
    devices = {device for process in plan.processes for device in process.gpu_uuids}
    return msgspec.structs.replace(facts, taken_ports=others | held, hardware=_released(facts.hardware, devices))


def _released(hardware: Hardware, devices: set[str]) -> Hardware:
    """Without the holders of these GPUs and MIG slices: they are the run's."""
    gpus = []
    for gpu in hardware.gpus:
        mig = tuple(msgspec.structs.replace(one, holders=()) if one.uuid in devices else one for one in gpu.mig)
        own = gpu.uuid in devices or any(one.uuid in devices for one in gpu.mig)
        gpus.append(msgspec.structs.replace(gpu, mig=mig, holders=() if own else gpu.holders))
    return msgspec.structs.replace(hardware, gpus=tuple(gpus))


def _refuse_other_engine(plan: Plan, fresh: Plan, kept: Mapping[str, ProcessSpec]) -> None:
    """Workers of one run are of one engine and one model: KV can't be handed over otherwise."""
    if fresh.model != plan.model:
        raise UsageError(
            f"the model is another than the run's: {fresh.model}", why=f"its workers have loaded {plan.model}"
        )
    was = next(iter(kept.values())).argv[0]
    now = next((process.argv[0] for process in fresh.workers() if process.id not in kept), was)
    if now != was:
        raise UsageError(
            f"the engine's interpreter is another than the run's: {now}",
            where="$DYNCTL_ENGINE_PYTHON, or the engine environment",
            why=f"its workers run under {was}",
            fix=f"set DYNCTL_ENGINE_PYTHON={was}",
        )
