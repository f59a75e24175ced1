"""Workers that run already and stay where they are while others are placed beside them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dynctl.engines.spec import ProcessSpec, Seat
from dynctl.hardware.values import parse_cpu_list
from dynctl.plan.placement.wanted import Wanted
from dynctl.topology.schema import Pin


def staying(worker: Wanted, spec: ProcessSpec) -> Wanted:
    """It is wanted just where it is."""
    # not validated: a machine known from a matrix has no UUIDs, and its GPUs are called by their index
    gpus = tuple(int(device) if device.isdecimal() else device for device in spec.gpu_uuids)
    pin = Pin.model_construct(gpus=gpus or None, nics=spec.nics or None)
    return msgspec.structs.replace(worker, pin=pin)


def held_seat(seat: Seat, spec: ProcessSpec) -> Seat:
    """`seat` with all that the worker holds."""
    return msgspec.structs.replace(
        seat,
        gpus=spec.gpus,
        gpu_uuids=spec.gpu_uuids,
        nics=spec.nics,
        numa=spec.numa,
        cpus=spec.cpus,
        memory_nodes=spec.memory_nodes,
        ports=spec.ports,
        reasons=spec.reasons,
    )


def held_cores(wanted: Sequence[Wanted], kept: Mapping[str, ProcessSpec]) -> dict[int, tuple[int, ...]]:
    """Cores by place in `wanted`, none for a worker that shares all cores with the others."""
    return {
        at: parse_cpu_list(cpus) if (cpus := kept[worker.id].cpus) else ()
        for at, worker in enumerate(wanted)
        if worker.id in kept
    }
