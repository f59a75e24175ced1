"""Pins: what the topology puts somewhere by hand, checked against the machine. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from dynctl.errors import UsageError
from dynctl.hardware.values import Hardware, cpu_list
from dynctl.plan.placement.units import Unit, by_name, remedy
from dynctl.plan.placement.wanted import Wanted

LISTED = 4


def pinned(wanted: Sequence[Wanted], found: Sequence[Unit]) -> dict[str, list[Unit]]:
    """The units of each worker that is pinned to GPUs, by worker id. UsageError for what can't be kept."""
    names = by_name(found)
    sliced = {name for unit in found if unit.mig for name in (unit.gpu.index, unit.gpu.uuid)}
    holders: dict[str, list[Wanted]] = {}
    out: dict[str, list[Unit]] = {}
    for worker in wanted:
        for name in worker.pin.gpus or ():
            unit = names.get(name)
            words = f"GPU {name}" if isinstance(name, int) else name
            if unit is None:
                why = "is cut into MIG slices" if name in sliced else "does not exist"
                raise _refused(worker, words, why, found, holders)
            if unit.hindrance:
                raise _refused(worker, words, unit.hindrance, found, holders, fix=remedy([unit]))
            if unit.mig and worker.gpus > 1:
                raise _refused(worker, words, "is a MIG slice: only a worker of one GPU runs there", found, holders)
            others = holders.setdefault(unit.device, [])
            if others and (worker.share is None or others[0].share is None):
                raise _refused(worker, words, f"{others[0].id} has", found, holders)
            total = sum((other.share or Fraction(0) for other in others), worker.share or Fraction(0))
            if total > 1:
                why = f"has no room for it: the shares there come to {float(total):g}"
                raise _refused(worker, words, why, found, holders, fix="lower `share`, or pin it elsewhere")
            others.append(worker)
            out.setdefault(worker.id, []).append(unit)
    return out


def refuse_wrong_nics(hardware: Hardware, wanted: Iterable[Wanted]) -> None:
    """UsageError when a pin names a NIC that is not there or has no active port."""
    known = {nic.name: nic for nic in hardware.nics}
    for worker in wanted:
        for name in worker.pin.nics or ():
            if name in known and known[name].active_ports:
                continue
            why = "has no active port" if name in known else "does not exist"
            active = ", ".join(nic.name for nic in hardware.nics if nic.active_ports) or "none"
            raise UsageError(
                f"{worker.id} is pinned to {name}, which {why}",
                where=worker.where,
                why=f"RDMA devices with an active port: {active}",
                fix="name one of these, or leave `nics` out",
            )


def _refused(
    worker: Wanted,
    what: str,
    why: str,
    found: Sequence[Unit],
    taken: Mapping[str, Sequence[Wanted]],
    fix: str | None = None,
) -> UsageError:
    free = [unit for unit in found if not unit.hindrance and not taken.get(unit.device)]
    whole = cpu_list(tuple(unit.gpu.index for unit in free if not unit.mig))
    slices = [unit.device for unit in free if unit.mig]
    more = f" and {len(slices) - LISTED} more slices" if len(slices) > LISTED else ""
    listed = ", ".join([part for part in (whole, *slices[:LISTED]) if part]) + more
    return UsageError(
        f"{worker.id} is pinned to {what}, which {why}",
        where=worker.where,
        why=f"GPUs that are free: {listed or 'none'}",
        fix=fix or "name free ones, or leave `gpus` out",
    )
