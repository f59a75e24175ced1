"""Which GPUs a worker gets: NVLink peers on one socket, with NICs that no other worker uses, where possible. Pure.

Free GPUs lie in cells (an NVLink clique on one NUMA node), and there in groups (the same nearest NICs). A worker takes
a cell that has room for all of it; failing that a clique, then a NUMA node, then whatever there is. Cells and groups
that look alike are one entry of a small table, so that choosing does not depend on how many there are.
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from dynctl.engines.spec import Role
from dynctl.plan.placement.cliques import Clique, cliques
from dynctl.plan.placement.nics import Nearest
from dynctl.plan.placement.units import Unit

SYS_RANK = 4
Look = TypeVar("Look", bound=tuple[float, ...])


class _Table(Generic[Look]):
    """Numbered things by what they look like; the first of those that look best is found without looking at all."""

    def __init__(self) -> None:
        self._alike: dict[Look, list[int]] = {}
        self._looks: dict[int, Look] = {}

    def put(self, at: int, look: Look) -> None:
        """It looks so now."""
        if self._looks.get(at) != look:
            self._looks[at] = look
            heapq.heappush(self._alike.setdefault(look, []), at)

    def drop(self, at: int) -> None:
        """It can't be chosen any more."""
        self._looks.pop(at, None)

    def numbers(self) -> Iterator[int]:
        """Everything that can be chosen, in no particular order."""
        return iter(self._looks)

    def best(self, score: Callable[[Look], tuple[float, ...] | None]) -> int | None:
        """The lowest number among those with the smallest score; a look without a score is not chosen."""
        found: tuple[tuple[float, ...], int] | None = None
        for look in list(self._alike):
            first = self._first(look)
            if first is not None and (points := score(look)) is not None and (found is None or (points, first) < found):
                found = points, first
        return found[1] if found else None

    def _first(self, look: Look) -> int | None:
        queue = self._alike[look]
        while queue and self._looks.get(queue[0]) != look:
            heapq.heappop(queue)
        if not queue:
            del self._alike[look]
        return queue[0] if queue else None


class _Group:
    """Free units with the same nearest NICs; `used`: GPUs of workers that may use these NICs too."""

    def __init__(self, nearest: Nearest) -> None:
        self.nearest = nearest
        self.free: dict[str, Unit] = {}
        self.used = 0

    def look(self) -> tuple[float, float, float]:
        """Distance of the NICs, GPUs that each of them carries, units that are free."""
        return self.nearest.rank, self.used / len(self.nearest.names) if self.nearest.names else 0.0, len(self.free)


class _Cell:
    """An NVLink clique on one NUMA node. `free`: its units; `unused`: those whose NICs no worker has yet."""

    def __init__(self, clique: Clique, numa: int | None) -> None:
        self.clique, self.numa = clique, numa
        self.free = self.unused = 0
        self.rank = float(SYS_RANK + 1)
        self._groups: list[_Group] = []
        self._of: dict[Nearest, int] = {}
        self._table: _Table[tuple[float, float, float]] = _Table()

    def add(self, unit: Unit) -> None:
        """Puts a free unit in."""
        at = self._of.setdefault(unit.nearest, len(self._groups))
        if at == len(self._groups):
            self._groups.append(_Group(unit.nearest))
        self._groups[at].free[unit.device] = unit
        self.rank = min(self.rank, unit.nearest.rank)
        self._update(at)
        self.free += 1
        self.unused += 1

    def occupy(self, unit: Unit) -> None:
        """Takes this very unit out, for a worker that is pinned to it."""
        self._take_from(self._of[unit.nearest], [unit])

    def take(self, count: int) -> list[Unit]:
        """Units whose NICs carry least: whole groups where they fit, the smallest that is enough for the rest."""
        taken: list[Unit] = []
        while rest := count - len(taken):
            at = self._table.best(functools.partial(_group_score, rest))
            assert at is not None  # noqa: S101 - callers take no more than is free
            taken += self._take_from(at, list(itertools.islice(self._groups[at].free.values(), rest)))
        return taken

    def use(self, at: int, count: int) -> None:
        """So many more GPUs use NICs that the units of this group could."""
        group = self._groups[at]
        if not group.used:
            self.unused -= len(group.free)
        group.used += count
        self._update(at)

    def groups(self) -> Iterable[tuple[Nearest, int]]:
        """The sets of nearest NICs that its units have, with the number of the group of each."""
        return self._of.items()

    def _take_from(self, at: int, chosen: list[Unit]) -> list[Unit]:
        group = self._groups[at]
        for unit in chosen:
            del group.free[unit.device]
        self.free -= len(chosen)
        self.unused -= 0 if group.used else len(chosen)
        self._update(at)
        return chosen

    def _update(self, at: int) -> None:
        if self._groups[at].free:
            self._table.put(at, self._groups[at].look())
        else:
            self._table.drop(at)


class Pool:
    """The units that nobody has yet."""

    def __init__(self, available: Iterable[Unit]) -> None:
        self._cells: list[_Cell] = []
        self._table: _Table[tuple[float, ...]] = _Table()
        self._of: dict[tuple[Clique, int | None], int] = {}
        self._cell_of: dict[str, int] = {}
        self._in_clique: dict[Clique, list[int]] = defaultdict(list)
        self._seated: dict[Clique, dict[Role, int]] = defaultdict(lambda: defaultdict(int))
        ready = list(available)
        for unit, clique in zip(ready, cliques(ready), strict=True):
            key = (clique, unit.numa)
            at = self._of.setdefault(key, len(self._cells))
            if at == len(self._cells):
                self._cells.append(_Cell(*key))
                self._in_clique[clique].append(at)
            self._cells[at].add(unit)
            self._cell_of[unit.device] = at
        self._alike = _overlaps((at, *group) for at, cell in enumerate(self._cells) for group in cell.groups())
        # with one clique there is nothing to prefer
        self._several = sum(clique.linked for clique in self._in_clique) > 1
        for at in range(len(self._cells)):
            self._update(at)

    def occupy(self, unit: Unit, role: Role) -> None:
        """Takes out what a worker of that role is pinned to."""
        at = self._cell_of[unit.device]
        self._cells[at].occupy(unit)
        self._seat(at, role, [unit])

    def take(self, count: int, role: Role) -> list[Unit] | None:
        """`count` units for a worker of that role, in NVML order; None where there are too few."""
        at = self._table.best(functools.partial(_cell_score, count, role))
        if at is not None:
            taken = self._cells[at].take(count)
            self._seat(at, role, taken)
            return _ordered(taken)
        for alike in (_by_clique, _by_node, _by_kind, _any):
            if cells := self._room(count, alike):
                return _ordered(self._take_across(cells, count, role))
        return None

    def _room(self, count: int, alike: Callable[[_Cell], Hashable]) -> list[int]:
        """The cells that together have room, of those that are alike in this way; as little room as is enough."""
        sets: dict[Hashable, list[int]] = defaultdict(list)
        for at in self._table.numbers():
            key = alike(self._cells[at])
            if key is not None and not self._cells[at].clique.sliced:
                sets[key].append(at)
        sizes = {key: sum(self._cells[at].free for at in cells) for key, cells in sets.items()}
        fitting = [key for key, size in sizes.items() if size >= count]
        return sets[min(fitting, key=lambda key: (sizes[key], min(sets[key])))] if fitting else []

    def _take_across(self, cells: list[int], count: int, role: Role) -> list[Unit]:
        taken: list[Unit] = []
        for at in sorted(cells, key=lambda at: (-self._cells[at].free, at)):
            if part := min(count - len(taken), self._cells[at].free):
                some = self._cells[at].take(part)
                self._seat(at, role, some)
                taken += some
        return taken

    def _seat(self, at: int, role: Role, taken: Iterable[Unit]) -> None:
        clique = self._cells[at].clique
        self._seated[clique][role] += 1
        changed = set(self._in_clique[clique] if self._several else (at,))
        for nearest, count in Counter(unit.nearest for unit in taken).items():
            for other, group in self._alike[nearest]:
                self._cells[other].use(group, count)
                changed.add(other)
        for other in changed:
            self._update(other)

    def _update(self, at: int) -> None:
        cell = self._cells[at]
        if not cell.free:
            self._table.drop(at)
            return
        seated = self._seated[cell.clique]
        ahead = seated["prefill"] - seated["decode"] if self._several and cell.clique.linked else 0
        sliced, alone = float(cell.clique.sliced), float(not cell.clique.linked)
        self._table.put(at, (sliced, alone, ahead, cell.rank, cell.unused, cell.free))


def _overlaps(groups: Iterable[tuple[int, Nearest, int]]) -> dict[Nearest, list[tuple[int, int]]]:
    """For each set of nearest NICs the groups, by cell and number, that could use one of these NICs too."""
    holders: dict[Nearest, list[tuple[int, int]]] = defaultdict(list)
    for cell, nearest, group in groups:
        holders[nearest].append((cell, group))
    sets = list(holders)
    with_nic: dict[str, list[int]] = defaultdict(list)
    for number, nearest in enumerate(sets):
        for name in nearest.names:
            with_nic[name].append(number)
    return {
        nearest: [one for number in sorted({n for name in nearest.names for n in with_nic[name]})
                  for one in holders[sets[number]]]
        for nearest in sets
    }  # fmt: skip


def _group_score(rest: int, look: tuple[float, float, float]) -> tuple[float, ...]:
    rank, load, free = look
    return (rank >= SYS_RANK, load, free > rest, free if free > rest else -free, rank)


def _cell_score(count: int, role: Role, look: tuple[float, ...]) -> tuple[float, ...] | None:
    sliced, alone, ahead, rank, unused, free = look
    if free < count or (sliced and count > 1):
        return None
    # where several cliques are, prefill and decode belong into the same one, and into as many as there are
    own = ahead if role == "prefill" else -ahead if role == "decode" else 0
    missed = (own > 0) - (own < 0)
    return (sliced, alone, missed, rank >= SYS_RANK, unused < count, rank, free - count)


def _by_clique(cell: _Cell) -> Hashable:
    return cell.clique if cell.clique.linked else None


def _by_node(cell: _Cell) -> Hashable:
    return (cell.numa, cell.clique.kind)


def _by_kind(cell: _Cell) -> Hashable:
    return cell.clique.kind


def _any(cell: _Cell) -> Hashable:
    return ""


def _ordered(found: Iterable[Unit]) -> list[Unit]:
    return sorted(found, key=lambda unit: (unit.gpu.index, unit.mig.index if unit.mig else 0))
