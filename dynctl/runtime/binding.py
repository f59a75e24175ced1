"""Where a process may really run and allocate, in /proc's own words, held against its plan. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

import msgspec

from dynctl.hardware.values import cpu_list, parse_cpu_list
from dynctl.telemetry.status import Bound

# mpol_to_str() in mm/mempolicy.c: a mode of one or two words, flags, nodes
_POLICY = re.compile(r"[0-9a-f]+ ((?:prefer \(many\)|weighted interleave|[a-z]+)(?:=[a-z|]+)?(?::[0-9,-]+)?)(?:\s|$)")

MOST_NOTES = 3
"""What differs is mostly the same for all ranks of a worker."""


class ProcessView(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a worker's tree: the cores that each thread may use, the nodes it may allocate from, its policy.

    `mems`, `policy`: None where /proc does not tell.
    """

    pid: int
    name: str
    threads: tuple[tuple[int, ...], ...]
    mems: tuple[int, ...] | None = None
    policy: str | None = None


def allowed(status: str, field: str) -> tuple[int, ...] | None:
    """`Cpus_allowed_list` or `Mems_allowed_list` of a /proc/PID/status; None if it has none that can be read."""
    found = re.search(rf"^{field}:[ \t]*([0-9,-]+)$", status, re.MULTILINE)
    try:
        return parse_cpu_list(found[1]) if found else None
    except ValueError:
        return None


def policy_of(numa_maps: str) -> str | None:
    """The policy in a /proc/PID/numa_maps: `default`, `prefer:0`, `prefer (many):0-1`; None if it has none.

    It is that of the first mapping, the program itself: later ones may have policies of their own, but cost the kernel
    a walk over all their pages.
    """
    found = _POLICY.match(numa_maps)
    return found[1] if found else None


def judge(
    cpus: str | None, nodes: Collection[int], views: Collection[ProcessView], refused: str | None = None
) -> Bound | None:
    """What `views` show against the planned cores and nodes. `refused`: why no memory policy could be set.

    None where there is nothing to see, or nothing was planned.
    """
    if not views or not (cpus or nodes):
        return None
    against = _cores_against(cpus, views) if cpus else []
    if nodes:
        against += [refused] if refused else _memory_against(nodes, views)
    notes = against[:MOST_NOTES] if against else _unread(nodes, views)
    if len(against) > MOST_NOTES:
        notes.append(f"{len(against) - MOST_NOTES} more")
    policies = dict.fromkeys(view.policy for view in views if view.policy)
    return Bound(
        cpus=cpu_list(tuple({core for view in views for thread in view.threads for core in thread})),
        memory=", ".join(policies) or None,
        ok=not against,
        note="; ".join(notes) or None,
    )


def _cores_against(cpus: str, views: Iterable[ProcessView]) -> list[str]:
    planned, found = set(parse_cpu_list(cpus)), []
    for view in views:
        strays = [thread for thread in view.threads if not planned.issuperset(thread)]
        used = {core for thread in view.threads for core in thread}
        if strays:
            cores = cpu_list(tuple({core for thread in strays for core in thread}))
            count = f"{len(strays)} of {len(view.threads)} threads of {_named(view)}"
            found.append(f"{count} may run on cores {cores}, planned are {cpus}")
        elif set() < used < planned:
            found.append(f"{_named(view)} runs on cores {cpu_list(tuple(used))} alone, planned are {cpus}")
    return found


def _memory_against(nodes: Collection[int], views: Iterable[ProcessView]) -> list[str]:
    planned, found = cpu_list(tuple(nodes)), []
    for view in views:
        missing = set(nodes) - set(view.mems) if view.mems is not None else set()
        if missing:
            found.append(f"{_named(view)} may not allocate from NUMA node {cpu_list(tuple(missing))} (cpuset)")
        elif view.policy is not None and not set() < _nodes(view.policy) <= set(nodes):
            found.append(f"{_named(view)} has the memory policy {view.policy}, planned is node {planned}")
    return found


def _unread(nodes: Collection[int], views: Iterable[ProcessView]) -> list[str]:
    unread = nodes and any(view.policy is None for view in views)
    return ["a memory policy was set, but /proc/PID/numa_maps can't be read"] if unread else []


def _nodes(policy: str) -> set[int]:
    """Nodes that a policy names: an engine may itself bind more strictly to those it was planned for."""
    _, colon, nodes = policy.partition(":")
    return set(parse_cpu_list(nodes)) if colon else set()


def _named(view: ProcessView) -> str:
    return f"{view.name} (pid {view.pid})"
