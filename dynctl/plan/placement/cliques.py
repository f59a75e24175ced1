"""Which GPUs are NVLink peers of each other. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dynctl.hardware.values import Gpu, nvlink_width
from dynctl.plan.placement.units import Unit


class Clique(NamedTuple):
    """NVLink peers of one kind (`linked`), all GPUs of that kind without a peer, or all MIG slices of one profile."""

    number: int
    kind: str
    linked: bool
    sliced: bool


def cliques(found: Sequence[Unit]) -> list[Clique]:
    """For each unit the set of GPUs that it is in, all of them NVLink peers of each other; slices have no NVLink."""
    whole = {unit.gpu.index: unit.gpu for unit in found if unit.mig is None}
    of: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for index, gpu in whole.items():
        of[index] = _joined(gpu, whole, of, sizes)
        sizes[of[index]] = sizes.get(of[index], 0) + 1
    out = []
    for unit in found:
        number = of.get(unit.gpu.index, 0) if unit.mig is None else 0
        linked = unit.mig is None and sizes[number] > 1
        kind = unit.gpu.name if unit.mig is None else unit.mig.profile or ""
        # GPUs without a peer are one set: among them NVLink does not decide
        out.append(Clique(number if linked else -1, kind, linked, unit.mig is not None))
    return out


def _joined(gpu: Gpu, whole: Mapping[int, Gpu], of: Mapping[int, int], sizes: Mapping[int, int]) -> int:
    """The number of the clique that this GPU joins: 0 is the one behind the NVSwitches."""
    if gpu.nvswitch_links:
        return 0
    peers = Counter(of[peer] for peer in gpu.nvlinks if peer in of and nvlink_width(gpu, whole[peer]))
    full = [number for number, count in peers.items() if count == sizes[number]]
    return max(full, key=lambda number: (sizes[number], -number)) if full else max(sizes, default=0) + 1
