"""Why a worker sits where it sits, a sentence for each choice. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from dynctl.engines.spec import Rail
from dynctl.hardware.values import Hardware, cpu_list, nvlink_width
from dynctl.plan.placement.nics import usable
from dynctl.plan.placement.units import Unit
from dynctl.plan.placement.wanted import Wanted

LISTED = 4


class Reasons:
    """What is the same for all workers of a plan, looked at once."""

    def __init__(self, hardware: Hardware, given: Mapping[str, list[Unit]], rails: Mapping[str, tuple[Rail, ...]]):
        self._on = Counter(unit.device for units in given.values() for unit in units)
        pairs = {(rail.nic, rail.gpu) for some in rails.values() for rail in some}
        self._carried = Counter(nic for nic, _ in pairs)
        self._unused = _unused(hardware)

    def of(
        self, worker: Wanted, units: Sequence[Unit], rails: Sequence[Rail], cores: str, memory: tuple[int, ...]
    ) -> tuple[str, ...]:
        """One sentence each on GPUs, NICs, cores and memory."""
        said = [*self._gpus(worker, units), *self._nics(worker, units, rails), cores]
        if memory:
            said.append(f"memory of NUMA node {memory[0]}: all of its {'GPUs are' if units else 'cores are'} there")
        return tuple(said)

    def _gpus(self, worker: Wanted, units: Sequence[Unit]) -> Iterator[str]:
        if not units:
            yield "no GPU: this machine has none"
            return
        what = units[0].text if len(units) == 1 else f"GPUs {cpu_list(tuple(unit.gpu.index for unit in units))}"
        where = _where(units)
        if worker.pin.gpus is not None:
            yield f"{what}: pinned; {where}"
        elif worker.share is not None:
            yield f"{what}: {float(worker.share):g} of it, {self._on[units[0].device]} workers share it; {where}"
        else:
            yield f"{what}: {where}"

    def _nics(self, worker: Wanted, units: Sequence[Unit], rails: Sequence[Rail]) -> Iterator[str]:
        if worker.pin.nics is not None:
            yield f"NICs {', '.join(worker.pin.nics)}: pinned" if worker.pin.nics else "no NIC: pinned to none"
            return
        if not rails:
            yield "no NIC: KV stays in host memory" if not units else f"no NIC: {self._unused or 'there is none'}"
            return
        for unit in units:
            names = [rail.nic for rail in rails if rail.gpu == unit.gpu.index]
            most = max(self._carried[name] for name in names)
            alone = "no other GPU of this run uses it" if len(names) == 1 else "no other GPU of this run uses them"
            load = alone if most == 1 else f"{most} GPUs of this run share it"
            near = len(unit.nearest.names)
            choice = "the nearest" if near == len(names) else f"of the {near} nearest"
            yield f"{', '.join(names)} for {unit.text}: {unit.nearest.distance}, {choice}; {load}"
        if self._unused:
            yield f"not used: {self._unused}"


def _where(units: Sequence[Unit]) -> str:
    numas = sorted({unit.numa for unit in units if unit.numa is not None})
    node = f"on NUMA node {numas[0]}" if len(numas) == 1 else "on NUMA nodes " + ",".join(map(str, numas))
    node = node if numas else "NUMA node not known"
    if len(units) == 1:
        return node
    gpus = [unit.gpu for unit in units]
    widths = [nvlink_width(gpus[0], other) for other in gpus[1:]]
    return f"{'NVLink peers' if all(widths) else 'not all of them NVLink peers'} {node}"


def _unused(hardware: Hardware) -> str:
    """The NICs that nobody gets without a pin, and why."""
    said = []
    for nic in hardware.nics:
        if not usable(nic):
            why = nic.use_reason or nic.use if nic.use != "kv" else "no active port"
            said.append(f"{nic.name} ({why})")
    more = f" and {len(said) - LISTED} more" if len(said) > LISTED else ""
    return ", ".join(said[:LISTED]) + more
