"""What each NIC is for: only those that may carry KV are given to workers. Pure.

A NIC is taken out only where something says so: no port is up; the machine's default route runs over it; it is a
BlueField among more NICs that are none; its link layer or rate is not that of most NICs next to GPUs; or no GPU is near
it while every GPU has others near, so that none will miss it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

import msgspec

from dynctl.hardware.distance import nic_distance
from dynctl.hardware.values import Gpu, Nic, NicPort, NicUse

NEAR = ("PIX", "PXB")
SLOW = 0.5
"""Below this part of the others' rate a NIC belongs to another network; above, its cable may just be bad."""
BLUEFIELD = ("15b3:a2d2", "15b3:a2d6", "15b3:a2dc", "15b3:a2df")
"""ConnectX within BlueField 1 to 4 (mlx5_core_pci_table). As SuperNICs they carry KV: then most are BlueFields."""

Value = TypeVar("Value", str, float)
Found = dict[str, tuple[NicUse, str]]


def assign_uses(nics: Iterable[Nic], gpus: Collection[Gpu], default_route: Collection[str]) -> tuple[Nic, ...]:
    """The NICs with `use` and `use_reason`. `default_route`: interfaces that default routes run over."""
    every = tuple(nics)
    usable = [nic for nic in every if nic.use == "kv"]
    found: Found = {nic.name: ("unusable", _down(nic.ports)) for nic in usable if not nic.active_ports}
    rules: tuple[Callable[[list[Nic]], Found], ...] = (
        lambda left: _routed(left, default_route),
        _bluefields,
        lambda left: _other_layer(left, gpus),
        lambda left: _other_rate(left, gpus),
        lambda left: _apart(left, gpus),
    )
    for rule in rules:
        found |= rule([nic for nic in usable if nic.name not in found])
    return tuple(_with(nic, found) for nic in every)


def _down(ports: tuple[NicPort, ...]) -> str:
    states = (f"port {port.number} is {port.state or '?'}/{port.phys_state or '?'}" for port in ports)
    return ", ".join(states) or "it has no ports"


def _routed(nics: list[Nic], default_route: Collection[str]) -> Found:
    """Those that the default route runs over, unless nothing else is left for KV."""
    routes = {nic.name: sorted({*nic.netdevs, *([nic.bond] if nic.bond else [])} & set(default_route)) for nic in nics}
    found: Found = {
        name: ("management", f"the default route runs over {names[0]}") for name, names in routes.items() if names
    }
    return found if len(found) < len(nics) else {}


def _bluefields(nics: list[Nic]) -> Found:
    found: Found = {
        nic.name: ("management", "it is a BlueField DPU, most other NICs are none")
        for nic in nics
        if nic.pci_id in BLUEFIELD
    }
    return found if 2 * len(found) < len(nics) else {}


def _other_layer(nics: list[Nic], gpus: Collection[Gpu]) -> Found:
    """Those whose link layer is not that of most NICs next to GPUs, or of most at all where none is."""
    models = [nic for nic in nics if _near(nic, gpus)] or nics
    common = _most(_layer(nic) for nic in models)
    return {
        nic.name: ("storage", f"its link layer is {_layer(nic)}, that of most other NICs is {common}")
        for nic in nics
        if common and _layer(nic) not in (None, common) and _spared(nic, [m for m in models if m != nic], gpus)
    }


def _other_rate(nics: list[Nic], gpus: Collection[Gpu]) -> Found:
    """Those that are much slower than most NICs next to GPUs; slower at all, where they are not next to one."""
    models = [nic for nic in nics if _near(nic, gpus)]
    common = _most(nic.rate_gigabits_per_s for nic in models or nics)
    found: Found = {}
    for nic in nics:
        rate, limit = nic.rate_gigabits_per_s, (common or 0.0) * (SLOW if not models or nic in models else 1)
        if rate and common and rate < limit and _spared(nic, [other for other in nics if other != nic], gpus):
            found[nic.name] = "management", f"its port runs at {rate:g} Gb/s, most other NICs' at {common:g} Gb/s"
    return found


def _apart(nics: list[Nic], gpus: Collection[Gpu]) -> Found:
    """Those next to no GPU, where every GPU has a NIC next to it."""
    near = {nic.name: _near(nic, gpus) for nic in nics}
    if not gpus or set().union(*near.values()) != {gpu.index for gpu in gpus}:
        return {}
    return {name: ("storage", "every GPU has other NICs next to it") for name, served in near.items() if not served}


def _spared(nic: Nic, others: list[Nic], gpus: Collection[Gpu]) -> bool:
    """Whether every GPU next to this NIC has another one next to it: what is a GPU's only near NIC is left to it."""
    return _near(nic, gpus) <= set().union(*(_near(other, gpus) for other in others))


def _near(nic: Nic, gpus: Collection[Gpu]) -> set[int]:
    """The GPUs next to it; none where paths are not known."""
    return {gpu.index for gpu in gpus if gpu.pci_path and nic.pci_path and nic_distance(gpu, nic) in NEAR}


def _most(values: Iterable[Value | None]) -> Value | None:
    """What more than half of the known values are."""
    known = Counter(value for value in values if value is not None)
    return next((value for value, count in known.items() if 2 * count > known.total()), None)


def _layer(nic: Nic) -> str | None:
    return next((port.link_layer for port in nic.ports if port.active), None)


def _with(nic: Nic, found: Found) -> Nic:
    if nic.name not in found:
        return nic
    use, reason = found[nic.name]
    return msgspec.structs.replace(nic, use=use, use_reason=reason)
