"""Which class of KV path each prefill-decode pair can have on this hardware, and the floor it must meet."""

from __future__ import annotations

from collections.abc import Mapping

from dynctl.engines.spec import Seat
from dynctl.errors import TransportError
from dynctl.fabric.verdict import tls_classes
from dynctl.hardware.values import Gpu, Hardware, nvlink_width
from dynctl.plan.values import CLASS_ORDER, PlannedPair, PlannedTransport, TransportClass
from dynctl.topology.schema import Topology


def plan_transport(topology: Topology, hardware: Hardware, seats: tuple[Seat, ...]) -> PlannedTransport:
    """Every pair with its path. TransportError (exit 4) when `require` asks for more than the hardware can offer."""
    prefills = [seat for seat in seats if seat.role == "prefill"]
    decodes = [seat for seat in seats if seat.role == "decode"]
    gpus = {gpu.index: gpu for gpu in hardware.gpus}
    pairs = tuple(_pair(topology, hardware, gpus, p, d) for p in prefills for d in decodes)
    return PlannedTransport(
        required=topology.transport.require,
        direction=topology.transport.direction,
        backend=topology.transport.backend,
        pairs=pairs,
    )


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


def _pair(topology: Topology, hardware: Hardware, gpus: Mapping[int, Gpu], source: Seat, target: Seat) -> PlannedPair:
    every = paths(topology, hardware, gpus, source, target)
    offered, reason = next(iter(every.items()))
    require = topology.transport.require
    if require != "auto" and CLASS_ORDER.index(offered) > CLASS_ORDER.index(require):
        raise _too_slow(topology, offered, reason, hardware, source, target)
    path, reason = _narrowed(topology, every)
    floor = path if require == "auto" else require
    return PlannedPair(from_=source.id, to=target.id, path=path, floor=floor, reason=reason)


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
