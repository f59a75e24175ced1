"""Disjoint cores for the workers, from the NUMA nodes of their GPUs. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

import msgspec

from dynctl.hardware.values import Gpu, Hardware

KEPT = 2
"""Cores of each node that are left to frontend and supervisor."""
FEWEST = 2
"""With fewer than that, a worker shares all cores with the others."""

Node = int | tuple[int, ...] | None
"""A NUMA node, or a GPU's own cores where no node is known, or the whole machine."""


class CoreShare(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's cores, none where there are too few to divide. `numa`: the node chosen for a worker without a GPU."""

    cores: tuple[int, ...] = ()
    numa: int | None = None
    reason: str


Want = Sequence[tuple[Gpu, Fraction]]
"""A worker's GPUs, each with the part of it that the worker takes."""


Held = Mapping[int, tuple[int, ...]]
"""By place among the wants: the cores of workers that run already, none where they share all cores."""


def divide(hardware: Hardware, wants: Sequence[Want], held: Held | None = None) -> list[CoreShare]:
    """Cores for each worker. Those of a node are divided by GPUs, idle ones too; without a GPU, by workers.

    Workers with `held` cores keep them, and the others get of what they leave.
    """
    held = held or {}
    if not hardware.has_gpu():
        return _without_gpus(hardware, len(wants), held)
    nodes = _nodes(hardware)
    home = {gpu.index: _node_of(gpu, nodes) for gpu in hardware.gpus}
    gpus_on = Counter(home.values())
    members: dict[Node, list[tuple[int, Fraction]]] = defaultdict(list)
    parts = [_by_node(want, home) for want in wants]
    for at, part in enumerate(parts):
        for node, share in part.items():
            members[node].append((at, share))
    cut: dict[tuple[Node, int], tuple[int, ...]] = {}
    taken = {core for cores in held.values() for core in cores}
    for node, sharers in members.items():
        fresh = [(at, share) for at, share in sharers if at not in held]
        left = gpus_on[node] - sum(share for at, share in sharers if held.get(at))
        slices = _slices(hardware, nodes[node], [share / left for _, share in fresh], taken)
        cut |= {(node, at): cores for (at, _), cores in zip(fresh, slices, strict=True)}
    return [
        _kept(held[at]) if at in held else _share([cut[node, at] for node in part], part, nodes, gpus_on)
        for at, part in enumerate(parts)
    ]


def _kept(cores: tuple[int, ...]) -> CoreShare:
    return CoreShare(cores=cores, reason="the cores that it has")


def _share(
    found: Sequence[tuple[int, ...]],
    part: Mapping[Node, Fraction],
    nodes: Mapping[Node, tuple[int, ...]],
    gpus_on: Mapping[Node, int],
) -> CoreShare:
    if not all(found):
        where = " and ".join(_name(node) for node in part)
        return CoreShare(reason=f"any core: {where} has too few to divide")
    counts = " and ".join(
        f"{_number(share)} of {gpus_on[node]} GPUs of {_name(node)} ({len(nodes[node])} cores)"
        for node, share in part.items()
    )
    cores = tuple(sorted(core for some in found for core in some))
    reason = f"{len(cores)} cores: {counts}; {KEPT} of each node are left to frontend and supervisor"
    return CoreShare(cores=cores, reason=reason)


def _without_gpus(hardware: Hardware, workers: int, held: Held) -> list[CoreShare]:
    """One node after the other, the emptiest first; on one node simply equal parts."""
    nodes = {node: cores for node, cores in _nodes(hardware).items() if cores}
    if not nodes:
        return [CoreShare(reason="any core: which there are is not known")] * workers
    seated: dict[Node, list[int]] = {node: [] for node in nodes}
    for at in range(workers):
        there = [node for node in nodes if held.get(at) and set(held[at]) <= set(nodes[node])]
        emptiest = min(nodes, key=lambda node: Fraction(len(seated[node]) + 1, len(nodes[node])))
        seated[next(iter(there), emptiest)].append(at)
    out: list[CoreShare] = [CoreShare(reason="")] * workers
    taken = {core for cores in held.values() for core in cores}
    for node, members in seated.items():
        fresh = [at for at in members if at not in held]
        sharing = [at for at in members if not held.get(at)]  # who has none of its own had too few to divide
        cut = _slices(hardware, nodes[node], [Fraction(1, len(sharing)) for _ in fresh], taken)
        numa = node if isinstance(node, int) and len(nodes) > 1 else None
        free = len(set(nodes[node]) - taken)
        for at, cores in zip(fresh, cut, strict=True):
            few = f"any core: {free} are too few to divide among {len(sharing)} workers"
            many = f"{len(cores)} cores: 1 of {len(sharing)} workers of {_name(node)}; {KEPT} are left to the rest"
            out[at] = CoreShare(cores=cores, numa=numa if cores else None, reason=many if cores else few)
    for at, cores in held.items():
        out[at] = _kept(cores)
    return out


def _nodes(hardware: Hardware) -> dict[Node, tuple[int, ...]]:
    """Sets of cores that don't overlap: NUMA nodes, then what GPUs say of themselves, then what is left."""
    allowed, taken = set(hardware.cores), set[int]()
    found: dict[Node, tuple[int, ...]] = {}
    known: list[tuple[Node, tuple[int, ...]]] = [(node.index, node.cores) for node in hardware.numa_nodes]
    listed = {node for node, _ in known}
    # a matrix knows cores by GPU, with the node beside them or without
    known += [(_said(gpu), gpu.cores) for gpu in hardware.gpus if gpu.cores and _said(gpu) not in listed]
    for node, cores in known:
        if node not in found:
            found[node] = tuple(sorted(core for core in set(cores) - taken if core in allowed or not allowed))
            taken.update(found[node])
    rest = tuple(sorted(allowed - taken))
    return {**{node: cores for node, cores in found.items() if cores}, None: rest}


def _said(gpu: Gpu) -> Node:
    return gpu.numa if gpu.numa is not None and gpu.numa >= 0 else gpu.cores


def _node_of(gpu: Gpu, nodes: dict[Node, tuple[int, ...]]) -> Node:
    said = _said(gpu)
    return said if said in nodes else None


def _by_node(want: Want, home: dict[int, Node]) -> dict[Node, Fraction]:
    part: dict[Node, Fraction] = {}
    for gpu, fraction in want:
        node = home[gpu.index]
        part[node] = part.get(node, Fraction(0)) + fraction
    return part


def _slices(
    hardware: Hardware, cores: tuple[int, ...], parts: Sequence[Fraction], taken: Collection[int] = ()
) -> list[tuple[int, ...]]:
    """Cores in a row, in these parts of what is left after `KEPT` and `taken`; a part that comes to too few is none.

    Where the cores are two spans of one length (`0-47,96-143`), those at the same place in each are hyperthreads of one
    core, as Linux numbers them, and stay together. A CPU quota shrinks all slices alike.
    """
    spans = _spans(cores)
    deep = 2 if len(spans) == 2 and len(spans[0]) == len(spans[1]) > 1 else 1
    rows = list(zip(*spans, strict=True)) if deep > 1 else [(core,) for core in cores]
    quota, every = hardware.limits.cpu_quota, len(hardware.cores)
    scale = min(Fraction(1), Fraction(quota).limit_denominator(1000) / every) if quota and every else Fraction(1)
    free = [row for row in rows if not any(core in taken for core in row)]
    room = max(Fraction(0), (len(rows) - Fraction(-(-KEPT // deep))) * scale - (len(rows) - len(free)))
    out: list[tuple[int, ...]] = []
    first = 0
    for part in parts:
        size = int(room * part)
        enough = size * deep >= FEWEST
        out.append(tuple(core for row in free[first : first + size] for core in row) if enough else ())
        first += size if enough else 0
    return [tuple(sorted(some)) for some in out]


def _spans(cores: tuple[int, ...]) -> list[list[int]]:
    spans: list[list[int]] = []
    for core in cores:
        if spans and core == spans[-1][-1] + 1:
            spans[-1].append(core)
        else:
            spans.append([core])
    return spans


def _name(node: Node) -> str:
    return f"NUMA node {node}" if isinstance(node, int) else "these GPUs' cores" if node else "the machine"


def _number(share: Fraction) -> str:
    return str(share) if share.denominator == 1 else f"{float(share):.2f}"
