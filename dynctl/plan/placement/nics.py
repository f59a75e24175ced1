"""The nearest NICs of each GPU, and who gets which of them: by PCIe distance, the load spread. Pure.

No GPU is compared with every NIC: NICs are indexed by the PCI bridges above them and by NUMA node, so that GPUs below
the same bridge share one answer. Only a matrix, which has an entry for every pair, is read pair by pair.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dynctl.hardware.distance import nic_distance
from dynctl.hardware.values import DISTANCES, Distance, Gpu, Hardware, Nic, NicPort

Prefix = tuple[str, ...]
Key = tuple[Distance, tuple[Prefix | int, ...]]


class Nearest(msgspec.Struct, frozen=True, kw_only=True):
    """The NICs at the smallest distance that a GPU has, in the machine's order; none and None on a machine without."""

    names: tuple[str, ...] = ()
    distance: Distance | None = None

    @property
    def rank(self) -> int:
        """0 for the nearest distance there is; behind the last one where there is no NIC."""
        return DISTANCES.index(self.distance) if self.distance else len(DISTANCES)


def usable(nic: Nic) -> bool:
    """Whether a worker may get it without a pin."""
    return nic.use == "kv" and bool(nic.active_ports)


def best_port(nic: Nic) -> NicPort:
    """The fastest port that can carry traffic, the first of several; there must be one."""
    active = [port for port in nic.ports if port.active]
    return max(active, key=lambda port: (port.rate_gigabits_per_s or 0.0, -port.number))


class NicIndex:
    """The usable NICs of a machine, to be found from a GPU's place."""

    def __init__(self, hardware: Hardware) -> None:
        self._nics = [nic for nic in hardware.nics if usable(nic)]
        self._order = {nic.name: at for at, nic in enumerate(self._nics)}
        self._switch: dict[Prefix, list[Nic]] = defaultdict(list)
        self._below: dict[Prefix, list[Nic]] = defaultdict(list)
        self._numa: dict[int, list[Nic]] = defaultdict(list)
        for nic in self._nics:
            path = nic.pci_path
            for length in {max(2, len(path) - 2), len(path) - 1}:
                if 2 <= length < len(path):
                    self._switch[path[:length]].append(nic)
            for length in (1, 2):
                if len(path) >= length:
                    self._below[path[:length]].append(nic)
            if nic.numa is not None and nic.numa >= 0:
                self._numa[nic.numa].append(nic)
        self._known: dict[Key, Nearest] = {}

    def nearest(self, gpu: Gpu) -> Nearest:
        """As `distance.nic_distance` would find by trying every NIC."""
        if not self._nics:
            return Nearest()
        if gpu.nic_distances is not None:
            return self._of_matrix(gpu)
        path = gpu.pci_path
        # PIX: what both have in common is at most two components short of either
        lengths = [length for length in (len(path) - 2, len(path) - 1) if length >= 2]
        if near := tuple(path[:length] for length in lengths if path[:length] in self._switch):
            behind = self._pix(path, near)
            if behind.names:
                return behind
        below: tuple[tuple[Distance, int], ...] = (("PXB", 2), ("PHB", 1))
        for distance, length in below:
            if len(path) >= length and (found := self._below.get(path[:length])):
                return self._answer(distance, (path[:length],), found)
        if gpu.numa is not None and gpu.numa in self._numa:
            return self._answer("NODE", (gpu.numa,), self._numa[gpu.numa])
        return self._answer("SYS", (), self._nics)

    def _pix(self, path: Prefix, near: tuple[Prefix, ...]) -> Nearest:
        key: Key = ("PIX", (*near, len(path)))
        if key not in self._known:
            found = [nic for prefix in near for nic in self._switch[prefix] if _behind_one_switch(path, nic.pci_path)]
            self._answer("PIX", key[1], found)
        return self._known[key]

    def _of_matrix(self, gpu: Gpu) -> Nearest:
        by_distance: dict[Distance, list[Nic]] = defaultdict(list)
        for nic in self._nics:
            by_distance[nic_distance(gpu, nic)].append(nic)
        distance = min(by_distance, key=DISTANCES.index)
        return Nearest(names=tuple(nic.name for nic in by_distance[distance]), distance=distance)

    def _answer(self, distance: Distance, key: tuple[Prefix | int, ...], found: Iterable[Nic]) -> Nearest:
        known = self._known.get((distance, key))
        if known is None:
            names = sorted({nic.name for nic in found}, key=self._order.__getitem__)
            known = self._known[distance, key] = Nearest(names=tuple(names), distance=distance)
        return known


def _behind_one_switch(a: Prefix, b: Prefix) -> bool:
    common = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return common >= 2 and max(len(a), len(b)) - common <= 2


def spread(wanted: Sequence[Nearest], held: Mapping[str, int]) -> list[tuple[str, ...]]:
    """NICs for each of these GPUs, all among its nearest. `held`: GPUs that each NIC carries already, by pins.

    First every GPU gets one, who has the least choice first; where there are fewer NICs than GPUs, neighbours share, so
    that a worker rather shares with itself. What nobody needed is then dealt out, as many to each of those with
    the same nearest NICs. So no NIC carries more than ceil(GPUs/NICs) of those that it is nearest to.
    """
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for at, nearest in enumerate(wanted):
        alike[nearest.names].append(at)
    groups = sorted(((n, m) for n, m in alike.items() if n), key=lambda group: (len(group[0]), group[1][0]))
    load = dict(held)
    parts: dict[int, list[str]] = {}
    given: list[tuple[str, ...]] = [()] * len(wanted)
    for names, members in groups:
        for at, part in zip(members, _parts(names, load, len(members)), strict=True):
            parts[at] = part
            load[part[0]] = load.get(part[0], 0) + 1
    for _, members in groups:
        more = {at: [name for name in parts[at][1:] if not load.get(name)] for at in members}
        each = min(map(len, more.values()))
        for at in members:
            given[at] = (parts[at][0], *more[at][:each])
            load |= dict.fromkeys(more[at][:each], 1)
    return given


def _parts(names: Sequence[str], load: Mapping[str, int], count: int) -> list[list[str]]:
    """Equal shares of the NICs that carry nothing yet; where there are too few, one that is least loaded for each."""
    free = [name for name in names if not load.get(name)]
    each = len(free) // count
    if not each:
        return [[name] for name in _least_loaded(names, load, count)]
    return [free[at * each : (at + 1) * each] for at in range(count)]


def _least_loaded(names: Sequence[str], load: Mapping[str, int], count: int) -> list[str]:
    """`count` NICs, each time the one with the least load; equal ones next to each other."""
    queue = [(load.get(name, 0), at) for at, name in enumerate(names)]
    heapq.heapify(queue)
    times = [0] * len(names)
    for _ in range(count):
        carried, at = queue[0]
        times[at] += 1
        heapq.heapreplace(queue, (carried + 1, at))
    return [name for at, name in enumerate(names) for _ in range(times[at])]
