"""Which NIC ports carry each worker's KV, GPU by GPU. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dynctl.engines.spec import Rail
from dynctl.hardware.distance import nic_distance
from dynctl.hardware.values import DISTANCES, Hardware, Nic
from dynctl.plan.placement.nics import Nearest, best_port, spread
from dynctl.plan.placement.units import Unit
from dynctl.plan.placement.wanted import Wanted


def rails(hardware: Hardware, wanted: Sequence[Wanted], given: Mapping[str, list[Unit]]) -> dict[str, tuple[Rail, ...]]:
    """By worker id. Workers on one GPU use the same; pinned NICs are divided among the GPUs of their worker."""
    nics = {nic.name: nic for nic in hardware.nics}
    out: dict[str, tuple[Rail, ...]] = {}
    load: dict[str, int] = defaultdict(int)
    free: dict[str, Unit] = {}
    for worker in wanted:
        units = given.get(worker.id, [])
        if worker.pin.nics is None:
            free.update({unit.device: unit for unit in units})
            continue
        out[worker.id] = _pinned([nics[name] for name in worker.pin.nics], units)
        for rail in out[worker.id]:
            load[rail.nic] += 1
    order = sorted(free.values(), key=lambda unit: (unit.gpu.index, unit.mig.index if unit.mig else 0))
    parts = spread([unit.nearest for unit in order], load)
    names = {unit.device: part for unit, part in zip(order, parts, strict=True)}
    for worker in wanted:
        if worker.id not in out:
            units = given.get(worker.id, [])
            out[worker.id] = tuple(_rail(nics[name], unit) for unit in units for name in names[unit.device])
    return out


def _pinned(nics: Sequence[Nic], units: Sequence[Unit]) -> tuple[Rail, ...]:
    if len(units) < 2:
        return tuple(_rail(nic, units[0] if units else None) for nic in nics)
    nearest = []
    for unit in units:
        distance = min((nic_distance(unit.gpu, nic) for nic in nics), key=DISTANCES.index, default=None)
        names = tuple(nic.name for nic in nics if nic_distance(unit.gpu, nic) == distance)
        nearest.append(Nearest(names=names, distance=distance))
    known = {nic.name: nic for nic in nics}
    return tuple(
        _rail(known[name], unit) for unit, part in zip(units, spread(nearest, {}), strict=True) for name in part
    )


def _rail(nic: Nic, unit: Unit | None) -> Rail:
    return Rail(
        gpu=unit.gpu.index if unit else None,
        gpu_pci=unit.gpu.pci if unit else "",
        nic=nic.name,
        nic_pci=nic.pci,
        port=best_port(nic).number,
    )
