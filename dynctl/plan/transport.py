"""Which class of KV path each prefill-decode pair can have on this hardware, and the floor it must meet."""

from __future__ import annotations

from dynctl.engines.spec import Seat
from dynctl.errors import TransportError
from dynctl.hardware.values import Hardware
from dynctl.plan.values import CLASS_ORDER, PlannedPair, PlannedTransport, TransportClass
from dynctl.topology.schema import Topology


def plan_transport(topology: Topology, hardware: Hardware, seats: tuple[Seat, ...]) -> PlannedTransport:
    """Every pair with its path. TransportError (exit 4) when `require` asks for more than the hardware can offer."""
    prefills = [seat for seat in seats if seat.role == "prefill"]
    decodes = [seat for seat in seats if seat.role == "decode"]
    pairs = tuple(_pair(topology, hardware, p, d) for p in prefills for d in decodes)
    return PlannedTransport(
        required=topology.transport.require,
        direction=topology.transport.direction,
        backend=topology.transport.backend,
        pairs=pairs,
    )


def best_path(hardware: Hardware, source: Seat, target: Seat) -> tuple[TransportClass, str]:
    """The best class that the hardware offers this pair, and why. Same node."""
    if hardware.has_gpu():
        if _nvlink(hardware, source, target):
            return "nvlink", "their GPUs are NVLink peers"
        if hardware.has_rdma():
            return "rdma", "no NVLink between their GPUs; RDMA ports are active"
        return "tcp", "no NVLink between their GPUs and no active RDMA port"
    if hardware.cma.allowed:
        return "shm", f"host memory on one node, CMA is permitted ({hardware.cma.reason})"
    return "tcp", f"host memory on one node, CMA is not permitted ({hardware.cma.reason})"


def _pair(topology: Topology, hardware: Hardware, source: Seat, target: Seat) -> PlannedPair:
    offered, reason = best_path(hardware, source, target)
    require = topology.transport.require
    if require != "auto" and CLASS_ORDER.index(offered) > CLASS_ORDER.index(require):
        raise _too_slow(topology, offered, reason, hardware, source, target)
    path, reason = _narrowed(topology, offered, reason)
    floor = path if require == "auto" else require
    return PlannedPair(from_=source.id, to=target.id, path=path, floor=floor, reason=reason)


def _narrowed(topology: Topology, offered: TransportClass, reason: str) -> tuple[TransportClass, str]:
    """A UCX_TLS of tcp alone lowers what can be expected; the verdict is still read from UCX."""
    tls = topology.transport.env.get("UCX_TLS", "")
    if tls and set(tls.replace(" ", "").split(",")) <= {"tcp", "self"}:
        return "tcp", f"transport.env sets UCX_TLS={tls}"
    return offered, reason


def _nvlink(hardware: Hardware, source: Seat, target: Seat) -> bool:
    peers = {gpu.index: set(gpu.nvlink_peers) for gpu in hardware.gpus}
    return all(b in peers.get(a, ()) for a in source.gpus for b in target.gpus)


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
