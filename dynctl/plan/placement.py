"""Which worker sits where. Pure: the same topology and hardware always give the same seats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dynctl.engines.spec import Role, Seat
from dynctl.errors import HostError, UsageError
from dynctl.hardware.values import Gpu, Hardware, cpu_list
from dynctl.plan.ports import PortAllocator
from dynctl.topology.schema import Pin, RoleSpec, Topology

WORKER_ROLES: tuple[Role, ...] = ("prefill", "decode", "worker")


def place(
    topology: Topology, hardware: Hardware, ports: PortAllocator, needs: Mapping[Role, Mapping[str, int]]
) -> tuple[Seat, ...]:
    """A seat for every worker. `needs` names the ports that a worker of each role wants, and how many consecutive ones.

    Raises HostError when there are too few GPUs, UsageError for a pin that names what is not there or not free.
    """
    wanted = [(role, spec, index) for role, spec in roles(topology) for index in range(spec.workers)]
    _refuse_gpus_without_any(topology, hardware)
    gpus = _Gpus(hardware, sum(spec.gpus_per_worker for _, spec, _ in wanted))
    for role, spec, index in wanted:
        where = topology.where("roles", role, "pin", index)
        _refuse_absent_nics(hardware, f"{role}-{index}", _pin(spec, index).nics or (), where)
        gpus.pin(f"{role}-{index}", _pin(spec, index).gpus or (), where)
    cores = _core_slices(hardware, len(wanted))
    return tuple(
        _seat(role, spec, index, gpus, cores[at], _take_ports(ports, needs[role]))
        for at, (role, spec, index) in enumerate(wanted)
    )


def roles(topology: Topology) -> list[tuple[Role, RoleSpec]]:
    """The worker roles that the topology has, in the order they are placed."""
    found = [(role, getattr(topology.roles, role)) for role in WORKER_ROLES]
    return [(role, spec) for role, spec in found if spec is not None]


def _take_ports(ports: PortAllocator, needs: Mapping[str, int]) -> dict[str, int]:
    """Ports by name; of several consecutive ones the first has the name alone, the others a number after it."""
    taken: dict[str, int] = {}
    for name, count in needs.items():
        first = ports.take(count)
        taken |= {f"{name}_{step}" if step else name: first + step for step in range(count)}
    return taken


def _seat(role: Role, spec: RoleSpec, index: int, gpus: _Gpus, cores: tuple[int, ...], ports: dict[str, int]) -> Seat:
    taken = gpus.take(f"{role}-{index}", spec.gpus_per_worker)
    return Seat(
        id=f"{role}-{index}",
        role=role,
        index=index,
        gpus=tuple(gpu.index for gpu in taken),
        gpu_uuids=tuple(gpu.uuid for gpu in taken),
        nics=tuple(_pin(spec, index).nics or ()),
        numa=taken[0].numa if taken else None,
        cpus=cpu_list(cores) if cores else None,
        ports=ports,
    )


def _pin(spec: RoleSpec, index: int) -> Pin:
    return spec.pin[index] if spec.pin and index < len(spec.pin) else Pin()


def _refuse_absent_nics(hardware: Hardware, worker: str, names: Iterable[str], where: str) -> None:
    known = {nic.name: nic for nic in hardware.nics}
    for name in names:
        if name not in known or not known[name].active_ports:
            why = "has no active port" if name in known else "does not exist"
            usable = ", ".join(nic.name for nic in hardware.nics if nic.active_ports) or "none"
            raise UsageError(
                f"{worker} is pinned to {name}, which {why}",
                where=where,
                why=f"RDMA devices with an active port: {usable}",
                fix="name one of these, or leave `nics` out",
            )


def _refuse_gpus_without_any(topology: Topology, hardware: Hardware) -> None:
    """`tp` also splits a worker over CPUs; who writes `gpus` means GPUs."""
    for role, spec in roles(topology):
        if spec.gpus and not hardware.has_gpu():
            raise HostError(
                f"{role} is to have {spec.gpus} GPUs for each worker; this machine has none",
                where=topology.where("roles", role, "gpus"),
                why="NVML finds no GPU",
                fix="leave `gpus` out to run on the CPU",
            )


class _Gpus:
    """Whole GPUs in NVML order; those a process already uses are passed over, and pinned ones kept for their worker."""

    def __init__(self, hardware: Hardware, wanted: int) -> None:
        self._on_cpu = not hardware.has_gpu()
        self._all = {gpu.index: gpu for gpu in hardware.gpus}
        self._free = {gpu.index: gpu for gpu in hardware.gpus if not gpu.holders}
        self._pinned: dict[str, list[Gpu]] = {}
        if not self._on_cpu and wanted > len(self._free):
            busy = [
                f"GPU {gpu.index} is held by {', '.join(holder.text() for holder in gpu.holders)}"
                for gpu in hardware.gpus
                if gpu.holders
            ]
            raise HostError(
                f"the topology needs {wanted} GPUs; this machine has {len(self._free)} free of {len(self._all)}",
                where="roles",
                why=busy,
                fix="ask for fewer workers or a smaller tp, or end what holds the GPUs",
            )

    def pin(self, worker: str, indexes: Iterable[int], where: str) -> None:
        """Keeps these GPUs for that worker."""
        for index in indexes:
            if index not in self._free:
                free = ", ".join(map(str, self._free)) or "none"
                raise UsageError(
                    f"{worker} is pinned to GPU {index}, which {self._hindrance(index)}",
                    where=where,
                    why=f"GPUs that are free: {free}",
                    fix="name free ones, or leave `gpus` out",
                )
            self._pinned.setdefault(worker, []).append(self._free.pop(index))

    def take(self, worker: str, count: int) -> list[Gpu]:
        """The worker's own GPUs, or the first free ones."""
        if self._on_cpu:
            return []
        return self._pinned.get(worker) or [self._free.pop(index) for index in sorted(self._free)[:count]]

    def _hindrance(self, index: int) -> str:
        if index not in self._all:
            return "does not exist"
        if holders := self._all[index].holders:
            return f"is held by {', '.join(holder.text() for holder in holders)}"
        return f"{next(worker for worker, gpus in self._pinned.items() if self._all[index] in gpus)} has"


def _core_slices(hardware: Hardware, workers: int) -> list[tuple[int, ...]]:
    """Disjoint cores per worker, two kept for frontend and supervisor; none where there are too few to divide."""
    share = (len(hardware.cores) - 2) // workers if workers else 0
    if hardware.has_gpu() or share < 2:
        return [()] * workers
    return [hardware.cores[at * share : (at + 1) * share] for at in range(workers)]
