"""What each NIC is for: only those that may carry KV are given to workers. Pure.

A NIC is taken out only where something says so: it has no active port while others do, the machine's default route runs
over it, its link layer or rate is not that of the others, or no GPU is near it while other NICs sit next to GPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

from dynctl.hardware.distance import nic_distance
from dynctl.hardware.values import Gpu, Nic, NicUse

NEAR = ("PIX", "PXB")
SLOW = 0.5
"""A NIC below this part of the fastest one's rate belongs to another network."""


def assign_uses(nics: Iterable[Nic], gpus: Collection[Gpu], default_route: Collection[str]) -> tuple[Nic, ...]:
    """The NICs with `use` and `use_reason`. `default_route`: interfaces that the default route runs over."""
    every = tuple(nics)
    candidates = [nic for nic in every if nic.use == "kv" and nic.active_ports]
    near = {nic.name for nic in candidates if any(nic_distance(gpu, nic) in NEAR for gpu in gpus if gpu.pci_path)}
    found: dict[str, tuple[NicUse, str]] = {}
    for nic in candidates:
        routed = {*nic.netdevs, nic.bond} & set(default_route)
        if routed and len(candidates) > 1:
            found[nic.name] = "management", f"the default route runs over {sorted(map(str, routed))[0]}"
        elif near and nic.name not in near:
            found[nic.name] = "storage", "other NICs sit next to GPUs, this one next to none"
    found |= _odd([nic for nic in candidates if nic.name not in found])
    return tuple(_with(nic, found) for nic in every)


def _odd(nics: list[Nic]) -> dict[str, tuple[NicUse, str]]:
    """Those whose link layer or rate is not that of the others."""
    layers = Counter(_layer(nic) for nic in nics if _layer(nic))
    common = layers.most_common(2)
    fastest = max((nic.rate_gigabits_per_s or 0.0 for nic in nics), default=0.0)
    found: dict[str, tuple[NicUse, str]] = {}
    for nic in nics:
        rate = nic.rate_gigabits_per_s
        if len(common) == 2 and common[0][1] > common[1][1] and _layer(nic) not in (None, common[0][0]):
            found[nic.name] = "storage", f"its link layer is {_layer(nic)}, that of most others is {common[0][0]}"
        elif rate and rate < SLOW * fastest:
            found[nic.name] = "management", f"its port runs at {rate:g} Gb/s, the fastest at {fastest:g} Gb/s"
    return found


def _layer(nic: Nic) -> str | None:
    return next((port.link_layer for port in nic.ports if port.active), None)


def _with(nic: Nic, found: dict[str, tuple[NicUse, str]]) -> Nic:
    if nic.name not in found:
        return nic
    use, reason = found[nic.name]
    return msgspec.structs.replace(nic, use=use, use_reason=reason)
