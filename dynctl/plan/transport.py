"""Which class of KV path each prefill-decode pair can have on this hardware, and the floor it must meet."""

from __future__ import annotations

from collections.abc import Mapping

from dynctl.engines.spec import Seat
from dynctl.errors import TransportError
from dynctl.fabric.verdict import tls_classes
from dynctl.hardware.values import Gpu, Hardware, nvlink_width
from dynctl.plan.values import CLASS_ORDER, PlannedPair, PlannedTransport, TransportClass
from dynctl.topology.schema import Topology


def plan_transport(
    topology: Topology, machines: Mapping[str, Hardware | None], seats: tuple[Seat, ...], own: Hardware
) -> PlannedTransport:
    """Every pair with its path. TransportError (exit 4) when `require` asks for more than the hardware can offer.

    `machines`: the hardware of each node, None where it is not known: it is then taken to be as this node's `own`.
    """
    prefills, decodes = _workers(seats, "prefill"), _workers(seats, "decode")
    known = {name: _Known(hardware or own, assumed=hardware is None) for name, hardware in machines.items()}
    pairs = tuple(_pair(topology, known, p, d) for p in prefills for d in decodes)
    return PlannedTransport(
        required=topology.transport.require,
        direction=topology.transport.direction,
        backend=topology.transport.backend,
        pairs=pairs,
    )


def _workers(seats: tuple[Seat, ...], role: str) -> list[tuple[Seat, ...]]:
    """The workers of a role, each as its seats, the leader's first: more than one where it spans nodes."""
    found: dict[str, list[Seat]] = {}
    for seat in sorted((seat for seat in seats if seat.role == role), key=lambda seat: seat.rank):
        found.setdefault(seat.leader or seat.id, []).append(seat)
    return [tuple(found[seat.id]) for seat in seats if seat.id in found]


class _Known:
    """A machine and its GPUs by index."""

    def __init__(self, hardware: Hardware, *, assumed: bool) -> None:
        self.hardware, self.assumed = hardware, assumed
        self.gpus = {gpu.index: gpu for gpu in hardware.gpus}
        self.rdma = hardware.has_rdma()


def paths(
    topology: Topology, hardware: Hardware, gpus: Mapping[int, Gpu], source: Seat, target: Seat
) -> dict[TransportClass, str]:
    """The classes that the hardware offers this pair, best first, and why each is the best. Same node."""
    offered: dict[TransportClass, str] = {}
    if hardware.has_gpu():
        linked, why = _gpu_path(topology, gpus, source, target)
        if linked:
            offered["nvlink"] = why
            why = "the next best to NVLink"
        if source.rails and target.rails:
            over = f"{', '.join(source.nics)} -> {', '.join(target.nics)}"
            offered["rdma"] = f"{why}; RDMA ports are active ({over})"
        offered["tcp"] = f"{why} and no active RDMA port"
        return offered
    if hardware.cma.allowed:
        offered["shm"] = f"host memory on one node, CMA is permitted ({hardware.cma.reason})"
    offered["tcp"] = f"host memory on one node, CMA is not permitted ({hardware.cma.reason})"
    return offered


def between(require: str, source: tuple[str, bool], target: tuple[str, bool]) -> TransportClass:
    """The best class between two nodes, each given by name and whether it has ACTIVE RDMA ports.

    TransportError where `require` is auto and only one of them has: that is a fault far more often than a choice; and
    where more is required than there is.
    """
    if require == "nvlink" or (require in ("shm", "rdma") and not (source[1] and target[1])):
        raise _out_of_reach(require, source, target)
    if source[1] and target[1]:
        return "rdma"
    if require == "auto" and source[1] != target[1]:
        has, lacks = (source, target) if source[1] else (target, source)
        raise TransportError(
            f"node {has[0]} has active RDMA ports, node {lacks[0]} has none",
            where="transport.require: auto",
            why="between nodes `auto` means RDMA where both have it and TCP where neither has",
            fix=f"bring a port up on {lacks[0]} (`dynctl check-rdma` there says what is missing), or write "
            "`transport: {require: tcp}`",
        )
    return "tcp"


def _out_of_reach(require: str, source: tuple[str, bool], target: tuple[str, bool]) -> TransportError:
    lacking = [name for name, rdma in (source, target) if not rdma]
    return TransportError(
        f"nodes {source[0]} and {target[0]} can't reach `require: {require}` between them",
        where="transport.require",
        why=f"no active RDMA port on node {' and node '.join(lacking)}" if lacking else "RDMA is the best there is",
        fix="`dynctl check-rdma` on each says what is missing; `transport: {require: auto}` takes the best there is",
    )


def _pair(
    topology: Topology, known: Mapping[str, _Known], prefill: tuple[Seat, ...], decode: tuple[Seat, ...]
) -> PlannedPair:
    """By the slowest of its ways, where an end has parts on several nodes: some of its KV goes over that one."""
    source, target = prefill[0], decode[0]
    apart = dict.fromkeys((p.node, d.node) for p in prefill for d in decode if p.node != d.node)
    a, assumed = known[source.node], any(known[seat.node].assumed for seat in (*prefill, *decode))
    every = max(
        [_across(topology, (p, known[p]), (d, known[d])) for p, d in apart]
        or [paths(topology, a.hardware, a.gpus, source, target)],
        key=lambda offered: CLASS_ORDER.index(next(iter(offered))),
    )
    offered, reason = next(iter(every.items()))
    require = topology.transport.require
    if require != "auto" and CLASS_ORDER.index(offered) > CLASS_ORDER.index(require) and not assumed:
        raise _too_slow(topology, offered, reason, a.hardware, source, target)
    path, reason = _narrowed(topology, every)
    floor = path if require == "auto" else require
    return PlannedPair(
        from_=source.id, to=target.id, path=path, floor=floor, reason=reason, across=bool(apart), assumed=assumed
    )


def _across(topology: Topology, source: tuple[str, _Known], target: tuple[str, _Known]) -> dict[TransportClass, str]:
    """The classes between two nodes. What is not known of one is taken to be as on the node that plans."""
    a, b = source[1], target[1]
    guess = "; what is not known of a node is taken to be as on this one" if a.assumed or b.assumed else ""
    require = topology.transport.require
    unsure = any(end.assumed and not end.rdma for end in (a, b)) and all(end.assumed or end.rdma for end in (a, b))
    if unsure and require in ("shm", "rdma"):
        require = "tcp"  # who knows more of that node refuses it
    best = between(require, (source[0], a.rdma), (target[0], b.rdma))
    where = f"{source[0]} -> {target[0]}"
    if best == "rdma":
        return {"rdma": f"{where}: both have active RDMA ports{guess}", "tcp": f"{where}: RDMA is not used"}
    return {"tcp": f"{where}: no RDMA at both ends{guess}"}


def _narrowed(topology: Topology, offered: dict[TransportClass, str]) -> tuple[TransportClass, str]:
    """The best path that UCX_TLS leaves: it lowers what can be expected; the verdict is still read from UCX."""
    best, reason = next(iter(offered.items()))
    tls = topology.transport.env.get("UCX_TLS", "").strip()
    allowed = tls_classes(tls) if tls else frozenset(CLASS_ORDER)
    path = next((path for path in offered if path in allowed), best)
    return path, reason if path == best else f"transport.env sets UCX_TLS={tls}"


def _gpu_path(topology: Topology, gpus: Mapping[int, Gpu], source: Seat, target: Seat) -> tuple[bool, str]:
    """Whether UCX's cuda_ipc carries the pair's KV without the CPU, and why, or why not."""
    one = set(source.gpu_uuids) & set(target.gpu_uuids)
    if one and len(source.gpus) == len(target.gpus) == 1:
        gpu = gpus[source.gpus[0]]
        if topology.transport.direction == "push" or gpu.nvlinks or gpu.nvswitch_links:
            return True, f"both are on GPU {gpu.index}: cuda_ipc within one GPU"
        # uct/cuda/cuda_ipc: reads are offered only where the GPUs have NVLinks
        return False, f"both are on GPU {gpu.index}, which has no NVLink: UCX does not read by cuda_ipc there"
    if any(gpus[index].mig_enabled for index in (*source.gpus, *target.gpus)):
        return False, "MIG slices have neither NVLink nor cuda_ipc between them"
    if all(gpus[index].nvswitch_links for index in (*source.gpus, *target.gpus)):
        return True, "their GPUs are NVLink peers, behind NVSwitches"
    if all(nvlink_width(gpus[a], gpus[b]) for a in source.gpus for b in target.gpus):
        return True, "their GPUs are NVLink peers"
    return False, "no NVLink between their GPUs"


def _too_slow(
    topology: Topology, offered: str, reason: str, hardware: Hardware, source: Seat, target: Seat
) -> TransportError:
    require = topology.transport.require
    if require == "rdma" and not hardware.has_rdma():
        inactive = ", ".join(nic.name for nic in hardware.nics)
        seen = f"RDMA devices without an active port: {inactive}" if inactive else "no device in /sys/class/infiniband"
        fix = (
            "bring a port up (`ibstat`, `rdma link`)"
            if inactive
            else "load the NIC's driver (`modprobe mlx5_ib`), or pass the devices into the container; "
            "`transport: {require: auto}` takes the best path there is"
        )
        why = [seen, f"the best path on this machine is {offered}: {reason}"]
    else:
        why = [f"the best path on this machine is {offered}: {reason}"]
        fix = "`transport: {require: auto}` takes the best path there is"
    return TransportError(
        f"{source.id} -> {target.id} can't reach `require: {require}`",
        where=topology.where("transport", "require"),
        why=why,
        fix=fix,
    )
