"""GID tables: which entry UCX takes, and what it needs of the table. Pure.

UCX's order (uct/ib/base/ib_device.c): RoCE v2 before v1, and in each IPv4, then global IPv6, then link-local.
"""

from __future__ import annotations

import ipaddress
from typing import Literal

from dynctl.fabric.checks.case import Case, Finding, Subject, because, ok, skip
from dynctl.fabric.checks.values import Device, Need, Port
from dynctl.hardware.values import Gid

Kind = Literal["v2 IPv4", "v2 IPv6 global", "v2 IPv6 link-local", "v1 IPv4", "v1 IPv6 global", "v1 IPv6 link-local"]
KINDS: tuple[Kind, ...] = (
    *("v2 IPv4", "v2 IPv6 global", "v2 IPv6 link-local", "v1 IPv4", "v1 IPv6 global", "v1 IPv6 link-local"),
)
ADD_ADDRESS = "give its interface an address: `ip addr add ADDRESS/PREFIX dev {netdev}`"


def kind(gid: Gid) -> Kind | None:
    """What UCX sorts an entry by; None if it is not a GID."""
    version = "v2" if gid.type == "RoCE v2" else "v1"
    try:
        address = ipaddress.IPv6Address(gid.gid)
    except ValueError:
        return None
    family = "IPv4" if address.ipv4_mapped else "IPv6 link-local" if address.is_link_local else "IPv6 global"
    return next(found for found in KINDS if found == f"{version} {family}")


def ipv4(gid: Gid) -> str | None:
    """The IPv4 address of an entry that maps one."""
    try:
        address = ipaddress.IPv6Address(gid.gid).ipv4_mapped
    except ValueError:
        return None
    return str(address) if address else None


def selected(port: Port, need: Need) -> Gid | None:
    """The entry UCX takes: UCX_IB_GID_INDEX, else the first of the best kind; None if there is none."""
    index = forced_index(need)
    if index is not None:
        return next((gid for gid in port.gids if gid.index == index), None)
    known = [(KINDS.index(found), gid.index, gid) for gid in port.gids if (found := kind(gid))]
    return min(known)[2] if known else None


def forced_index(need: Need) -> int | None:
    """UCX_IB_GID_INDEX of the workers' environment; None: unset, `auto`, or not a number."""
    text = need.setting("UCX_IB_GID_INDEX") or ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None


def judge_ctr(case: Case, subject: Subject) -> Finding:
    """ctr: an ACTIVE port none of whose GIDs can be seen, from another network namespace than the NIC's."""
    port, host = subject.port, case.observed.host
    if port is None or not port.roce:
        return skip("only RoCE ports take their GIDs from network interfaces")
    same = host.netns.text is not None and host.netns.text == host.init_netns.text
    apart = (host.init_netns.text is not None and host.netns.text is not None and not same) or host.container
    if port.gids or not apart:
        words = {True: "the host's network namespace", False: "a container or another network namespace"}[not apart]
        return ok(f"{len(port.gids)} GIDs, {words}") if port.gids else skip("not in a container", words)
    if port.gids_error not in (None, "ENOENT"):
        return skip(f"its GIDs can't be read: {port.gids_error}")
    return Finding(
        case.grade(subject.device.name if subject.device else None),
        f"ACTIVE, all GIDs zero; {host.netns.shown()}, pid 1 in {host.init_netns.shown()}",
        "GIDs of the network interface",
        "the NIC's interface is in another network namespace (overlay network), so RoCE has no address here",
        "run with the host's network (`--network host`, `hostNetwork: true`), or give the pod an SR-IOV or macvlan NIC",
    )


def judge_gid(case: Case, subject: Subject) -> Finding:
    """gid: RoCE needs a version 2 entry."""
    port, device = subject.port, subject.device
    if port is None or device is None or not port.roce:
        return skip("InfiniBand: GIDs come from the subnet manager")
    if not port.gids and port.gids_error is not None:
        return skip(f"its GIDs can't be read: {port.gids_error}")
    good = [gid for gid in port.gids if gid.type == "RoCE v2"]
    if good:
        return ok(f"{len(good)} RoCE v2 GIDs", "a RoCE v2 GID")
    return Finding(
        case.grade(device.name),
        f"{len(port.gids)} GIDs, none of RoCE v2",
        "a RoCE v2 GID",
        "its interface has no address, or is in another network namespace",
        ADD_ADDRESS.format(netdev=_netdev(device)),
    )


def judge_gid0(case: Case, subject: Subject) -> Finding:
    """gid0: UCX's port check reads index 0 unless UCX_IB_GID_INDEX says another."""
    port, device = subject.port, subject.device
    if port is None or device is None:
        return skip("no port")
    if not port.gids and port.gids_error is not None:
        return skip(f"its GIDs can't be read: {port.gids_error}")
    first = next((gid for gid in port.gids if gid.index == 0), None)
    if first is not None and _interface_half(first):
        return ok(first.gid, "index 0 is not zero")
    if forced_index(case.need) is not None:
        return ok(f"index 0 is zero, UCX_IB_GID_INDEX={forced_index(case.need)}")
    other = selected(port, case.need)
    return Finding(
        case.grade(device.name),
        "the interface half of GID 0 is zero",
        "not zero, or UCX_IB_GID_INDEX set",
        "UCX checks index 0 and leaves out a port whose entry is zero",
        f"set UCX_IB_GID_INDEX={other.index} in transport.env" if other else "see the row `gid`",
    )


def judge_gidsel(case: Case, subject: Subject) -> Finding:
    """gidsel: the kind of entry that UCX takes; link-local and version 1 don't cross routers or switches well."""
    port, device = subject.port, subject.device
    if port is None or device is None or not port.roce:
        return skip("InfiniBand: UCX takes index 0")
    if port.gids_error is not None and not port.gids:
        return because("gid")
    index, entry = forced_index(case.need), selected(port, case.need)
    if entry is None or (found := kind(entry)) is None:
        return Finding(
            case.grade(device.name),
            f"UCX_IB_GID_INDEX={index}: no such GID",
            "the index of a GID that is there",
            "UCX_IB_GID_INDEX is one value for all devices, and this port has nothing there",
            "remove UCX_IB_GID_INDEX from transport.env",
        )
    shown = f"index {entry.index}, RoCE {found}"
    if found in ("v2 IPv4", "v2 IPv6 global"):
        return ok(shown, "RoCE v2 with a routable address")
    cause = "RoCE v1 is not routed" if found.startswith("v1") else "a link-local address reaches this link only"
    return Finding("warn", shown, "RoCE v2 with a routable address", cause, ADD_ADDRESS.format(netdev=_netdev(device)))


def _interface_half(gid: Gid) -> bool:
    try:
        return any(ipaddress.IPv6Address(gid.gid).packed[8:])
    except ValueError:
        return False


def _netdev(device: Device) -> str:
    return device.netdevs[0].name if device.netdevs else "INTERFACE"
