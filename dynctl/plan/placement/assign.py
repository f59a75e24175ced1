"""Every worker's units: pins first, the others in plan order unless the largest first splits fewer of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from dynctl.errors import HostError
from dynctl.plan.placement.cliques import cliques
from dynctl.plan.placement.gpus import Pool
from dynctl.plan.placement.units import Unit, remedy, unavailable
from dynctl.plan.placement.wanted import Wanted

Given = dict[str, list[Unit]]
LISTED = 8


def assign(wanted: Sequence[Wanted], found: Sequence[Unit], fixed: Mapping[str, list[Unit]]) -> Given:
    """Units by worker id. HostError when there are too few."""
    in_order = _give(wanted, found, fixed)
    if in_order is not None and not any(_split(in_order)):
        return in_order
    if len({worker.gpus for worker in wanted}) > 1:
        largest_first = _give(sorted(wanted, key=lambda worker: -worker.gpus), found, fixed)
        both = [given for given in (in_order, largest_first) if given is not None]
        in_order = min(both, key=_split, default=None)
    if in_order is None:
        raise _too_few(wanted, found, fixed)
    return in_order


def _give(order: Sequence[Wanted], found: Sequence[Unit], fixed: Mapping[str, list[Unit]]) -> Given | None:
    pins = {unit.device for units in fixed.values() for unit in units}
    pool = Pool(unit for unit in found if unit.device in pins or not (unit.hindrance or unit.small))
    shared = _Shared()
    given = dict(fixed)
    for worker in order:
        for unit in fixed.get(worker.id, ()):
            if unit.device in pins:
                pool.occupy(unit, worker.role)
                pins.discard(unit.device)
            if worker.share is not None:
                shared.add(unit, worker.share)
    for worker in order:
        if worker.id in given:
            continue
        if worker.share is not None and (place := shared.room(worker.share)):
            given[worker.id] = [place]
            continue
        taken = pool.take(worker.gpus, worker.role)
        if taken is None:
            return None
        given[worker.id] = taken
        if worker.share is not None:
            shared.add(taken[0], worker.share)
    return given


class _Shared:
    """Units that workers with `share` are on: the next one comes onto the first that has room."""

    def __init__(self) -> None:
        self._units: list[Unit] = []
        self._used: dict[str, Fraction] = {}
        self._full: dict[Fraction, int] = {}

    def add(self, unit: Unit, share: Fraction) -> None:
        """A worker that takes so much is there."""
        if unit.device not in self._used:
            self._units.append(unit)
        self._used[unit.device] = self._used.get(unit.device, Fraction(0)) + share

    def room(self, share: Fraction) -> Unit | None:
        """The first with room for it, which it then has."""
        at = self._full.get(share, 0)  # what had no room for so much never has again
        while at < len(self._units) and self._used[self._units[at].device] + share > 1:
            at += 1
        self._full[share] = at
        if at == len(self._units):
            return None
        self.add(self._units[at], share)
        return self._units[at]


def _split(given: Given) -> tuple[int, int]:
    """Workers whose GPUs are not all NVLink peers, though some GPU has a peer, and workers on several NUMA nodes."""
    every = {unit.device: unit for units in given.values() for unit in units}
    clique = dict(zip(every, cliques(list(every.values())), strict=True))
    several = [units for units in given.values() if len(units) > 1]
    peers = any(found.linked for found in clique.values())
    apart = sum(len({clique[unit.device] for unit in units}) > 1 for units in several) if peers else 0
    return apart, sum(len({unit.numa for unit in units}) > 1 for units in several)


def _too_few(wanted: Sequence[Wanted], found: Sequence[Unit], fixed: Mapping[str, list[Unit]]) -> HostError:
    pins = {unit.device for units in fixed.values() for unit in units}
    free = [unit for unit in found if unit.device in pins or not (unit.hindrance or unit.small)]
    need = sum(worker.gpus for worker in wanted if worker.share is None) + _bins(wanted)
    noun = "GPUs and MIG slices" if any(unit.mig for unit in found) else "GPUs"
    why = unavailable(unit for unit in found if unit.device not in pins)
    if len(why) > LISTED:
        why = [*why[:LISTED], f"and {len(why) - LISTED} more"]
    if need <= len(free):
        why.append("a worker of several GPUs needs whole ones, which are not in MIG mode")
    down = remedy(unit for unit in found if unit.hindrance)
    return HostError(
        f"the topology needs {need} GPUs; this machine has {len(free)} free of {len(found)}"
        + ("" if noun == "GPUs" else f" ({noun})"),
        where="roles",
        why=why,
        fix="ask for fewer workers or a smaller tp" + (f", or free some: {down}" if down else ", or free some"),
    )


def _bins(wanted: Sequence[Wanted]) -> int:
    """GPUs that the workers with `share` need, put one after the other onto the first with room."""
    used: list[Fraction] = []
    for share in (worker.share for worker in wanted if worker.share is not None):
        at = next((at for at, part in enumerate(used) if part + share <= 1), None)
        if at is None:
            used.append(share)
        else:
            used[at] += share
    return len(used)
