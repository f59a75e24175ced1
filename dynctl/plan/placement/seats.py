"""A seat for every worker: GPUs, NICs, cores, memory and ports, with the reasons. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction

import msgspec

from dynctl.engines.spec import ProcessSpec, Role, Seat, format_address
from dynctl.errors import HostError
from dynctl.hardware.values import Gpu, Hardware, cpu_list
from dynctl.plan.machine import Machine
from dynctl.plan.placement.assign import assign
from dynctl.plan.placement.cores import divide
from dynctl.plan.placement.kept import held_cores, held_seat, staying
from dynctl.plan.placement.pins import pinned, refuse_wrong_nics
from dynctl.plan.placement.rails import rails
from dynctl.plan.placement.reasons import Reasons
from dynctl.plan.placement.units import Unit, units
from dynctl.plan.placement.wanted import Wanted, roles, workers
from dynctl.plan.ports import PortAllocator
from dynctl.topology.schema import Topology


def place(
    topology: Topology,
    machines: Mapping[str, Machine],
    needs: Mapping[Role, Mapping[str, int]],
    kept: Mapping[str, ProcessSpec] | None = None,
) -> tuple[Seat, ...]:
    """A seat for every worker. `needs` names the ports that a worker of each role wants, and how many consecutive ones.

    `kept`: workers that run already, by id. They stay where they are, and the others get of what they leave.
    On a machine whose hardware is not known a seat has its address and ports, and everything else is left open.
    Raises HostError when there are too few GPUs, UsageError for a pin that names what is not there or not free.
    """
    kept = kept or {}
    every = [staying(worker, kept[worker.id]) if worker.id in kept else worker for worker in workers(topology)]
    seats: dict[str, Seat] = {}
    for machine in machines.values():
        own = [worker for worker in every if worker.node == machine.name]
        for seat in _on(topology, machine, own, needs, kept):
            seats[seat.id] = seat
    return tuple(_joined(seats[worker.id], worker, seats) for worker in every)


def _on(
    topology: Topology,
    machine: Machine,
    wanted: Sequence[Wanted],
    needs: Mapping[Role, Mapping[str, int]],
    kept: Mapping[str, ProcessSpec],
) -> list[Seat]:
    """The seats on one machine, of the workers that are wanted there."""
    bare = [
        Seat(
            id=worker.id,
            role=worker.role,
            index=worker.index,
            node=machine.name,
            address=machine.address,
            span=worker.span,
            rank=worker.rank,
        )
        for worker in wanted
    ]
    seats = _filled(topology, machine.hardware, wanted, bare, kept) if machine.hardware and wanted else bare
    return [
        held_seat(seat, kept[seat.id])
        if seat.id in kept
        else msgspec.structs.replace(seat, ports=_take_ports(machine.ports, _needed(worker, needs)))
        for seat, worker in zip(seats, wanted, strict=True)
    ]


def _filled(
    topology: Topology,
    hardware: Hardware,
    wanted: Sequence[Wanted],
    bare: Sequence[Seat],
    kept: Mapping[str, ProcessSpec],
) -> list[Seat]:
    """With GPUs, NICs, cores and memory of that hardware."""
    _refuse_gpus_without_any(topology, hardware, {worker.role for worker in wanted})
    found = units(hardware)
    refuse_wrong_nics(hardware, [worker for worker in wanted if worker.id not in kept])
    fixed = pinned(wanted, found)
    given = assign(wanted, found, fixed) if hardware.has_gpu() else {}
    rail = rails(hardware, wanted, given)
    cores = divide(hardware, [_parts(worker, given.get(worker.id, [])) for worker in wanted], held_cores(wanted, kept))
    reasons = Reasons(hardware, given, rail)
    seats = []
    for worker, core, seat in zip(wanted, cores, bare, strict=True):
        sits = given.get(worker.id, [])
        numa = _numa(sits) if sits else core.numa
        memory = _memory_nodes(hardware, numa)
        filled = msgspec.structs.replace(
            seat,
            gpus=tuple(unit.gpu.index for unit in sits),
            gpu_uuids=tuple(unit.device for unit in sits),
            nics=tuple(dict.fromkeys(worker.pin.nics or (part.nic for part in rail[worker.id]))),
            rails=rail[worker.id],
            numa=numa,
            cpus=cpu_list(core.cores) if core.cores else None,
            memory_nodes=memory,
            reasons=reasons.of(worker, sits, rail[worker.id], core.reason, memory),
        )
        seats.append(filled)
    return seats


def _needed(worker: Wanted, needs: Mapping[Role, Mapping[str, int]]) -> Mapping[str, int]:
    """Those who follow a leader on another node serve nobody themselves; the leader has a port where they meet."""
    if worker.rank:
        return {}
    return {**needs[worker.role], **({"master": 1} if worker.span > 1 else {})}


def _joined(seat: Seat, worker: Wanted, seats: Mapping[str, Seat]) -> Seat:
    """The seat with the place where the parts of its worker meet, if it has several."""
    if worker.span == 1:
        return seat
    leader = seats[worker.leader]
    meet = format_address(leader.address, leader.ports["master"])
    return msgspec.structs.replace(seat, master=meet, leader=worker.leader if worker.rank else None)


def _refuse_gpus_without_any(topology: Topology, hardware: Hardware, present: Collection[Role]) -> None:
    """`tp` also splits a worker over CPUs; who writes `gpus` means GPUs."""
    for role, spec in roles(topology):
        if spec.gpus and role in present and not hardware.has_gpu():
            raise HostError(
                f"{role} is to have {spec.gpus} GPUs for each worker; this machine has none",
                where=topology.where("roles", role, "gpus"),
                why="NVML finds no GPU",
                fix="leave `gpus` out to run on the CPU",
            )


def _parts(worker: Wanted, sits: Sequence[Unit]) -> list[tuple[Gpu, Fraction]]:
    """The worker's GPUs and how much of each is its own."""
    whole = worker.share or Fraction(1)
    return [(unit.gpu, whole / len(unit.gpu.mig) if unit.mig else whole) for unit in sits]


def _numa(sits: Sequence[Unit]) -> int | None:
    nodes = {unit.numa for unit in sits}
    return nodes.pop() if len(nodes) == 1 else None


def _memory_nodes(hardware: Hardware, numa: int | None) -> tuple[int, ...]:
    """That node, unless it is known to have no memory."""
    if numa is None:
        return ()
    sizes = {node.index: node.memory_bytes for node in hardware.numa_nodes}
    measured = hardware.source in ("discovered", "snapshot")
    return () if measured and sizes.get(numa) == 0 else (numa,)


def _take_ports(ports: PortAllocator, needs: Mapping[str, int]) -> dict[str, int]:
    """Ports by name; of several consecutive ones the first has the name alone, the others a number after it."""
    taken: dict[str, int] = {}
    for name, count in needs.items():
        first = ports.take(count)
        taken |= {f"{name}_{step}" if step else name: first + step for step in range(count)}
    return taken
