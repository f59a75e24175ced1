"""Which worker sits where. Pure: the same topology and hardware always give the same seats."""

from __future__ import annotations

from collections.abc import Mapping

from dynctl.engines.spec import Role, Seat
from dynctl.errors import HostError, UsageError
from dynctl.hardware.values import Gpu, Hardware, cpu_list
from dynctl.plan.ports import PortAllocator
from dynctl.topology.schema import RoleSpec, Topology

WORKER_ROLES: tuple[Role, ...] = ("prefill", "decode", "worker")


def place(topology: Topology, hardware: Hardware, ports: PortAllocator, needs: Mapping[str, int]) -> tuple[Seat, ...]:
    """A seat for every worker. `needs` names the ports each worker wants and how many consecutive ones.

    Raises HostError when there are too few GPUs, UsageError for a pin that names one that is not there.
    """
    wanted = [(role, spec, index) for role, spec in roles(topology) for index in range(spec.workers)]
    gpus = _Gpus(hardware, sum(spec.gpus_per_worker for _, spec, _ in wanted))
    cores = _core_slices(hardware, len(wanted))
    return tuple(
        _seat(role, spec, index, gpus, cores[at], {name: ports.take(count) for name, count in needs.items()})
        for at, (role, spec, index) in enumerate(wanted)
    )


def roles(topology: Topology) -> list[tuple[Role, RoleSpec]]:
    """The worker roles that the topology has, in the order they are placed."""
    found = [(role, getattr(topology.roles, role)) for role in WORKER_ROLES]
    return [(role, spec) for role, spec in found if spec is not None]


def _seat(role: Role, spec: RoleSpec, index: int, gpus: _Gpus, cores: tuple[int, ...], ports: dict[str, int]) -> Seat:
    pin = spec.pin[index] if spec.pin and index < len(spec.pin) else None
    taken = gpus.take(spec.gpus_per_worker, tuple(pin.gpus or ()) if pin else (), f"{role}-{index}")
    return Seat(
        id=f"{role}-{index}",
        role=role,
        index=index,
        gpus=tuple(gpu.index for gpu in taken),
        gpu_uuids=tuple(gpu.uuid for gpu in taken),
        nics=tuple(pin.nics or ()) if pin else (),
        numa=taken[0].numa if taken else None,
        cpus=cpu_list(cores) if cores else None,
        ports=ports,
    )


class _Gpus:
    """Whole GPUs in NVML order; those a process already uses are passed over."""

    def __init__(self, hardware: Hardware, wanted: int) -> None:
        self._on_cpu = not hardware.has_gpu()
        self._all = {gpu.index: gpu for gpu in hardware.gpus}
        self._free = {gpu.index: gpu for gpu in hardware.gpus if not gpu.holders}
        if not self._on_cpu and wanted > len(self._free):
            busy = [f"GPU {g.index} is held by {', '.join(g.holders)}" for g in hardware.gpus if g.holders]
            raise HostError(
                f"the topology needs {wanted} GPUs; this machine has {len(self._free)} free of {len(self._all)}",
                where="roles",
                why=busy,
                fix="ask for fewer workers or a smaller tp, or end what holds the GPUs",
            )

    def take(self, count: int, pinned: tuple[int, ...], worker: str) -> list[Gpu]:
        if self._on_cpu:
            return []
        for index in pinned:
            if index not in self._free:
                why = "is taken" if index in self._all else "does not exist"
                raise UsageError(f"{worker} is pinned to GPU {index}, which {why}", where="roles.*.pin")
        chosen = list(pinned) or sorted(self._free)[:count]
        return [self._free.pop(index) for index in chosen]


def _core_slices(hardware: Hardware, workers: int) -> list[tuple[int, ...]]:
    """Disjoint cores per worker, two kept for frontend and supervisor; none where there are too few to divide."""
    share = (len(hardware.cores) - 2) // workers if workers else 0
    if hardware.has_gpu() or share < 2:
        return [()] * workers
    return [hardware.cores[at * share : (at + 1) * share] for at in range(workers)]
