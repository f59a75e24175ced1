"""What must be alike on two nodes: kind of GID, MTU, quality of service, and the route between their NICs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dynctl.fabric.checks.case import Case, Finding, ok, skip
from dynctl.fabric.checks.gids import kind, selected
from dynctl.fabric.checks.values import Device, Need, Observed, Port, Route
from dynctl.fabric.report import Check

Property = Callable[[Device, Port, Need], str | None]
FIXES = {
    "gidsel": "the same kind of address on both nodes' NICs, or UCX_IB_GID_INDEX for both",
    "mtu": "the same MTU on both nodes and the switch: ip link set INTERFACE mtu 9000",
    "qos": "the same traffic class, PFC and ECN on both nodes and the switch: mlnx_qos -i INTERFACE",
}
CAUSES = {
    "gidsel": "UCX takes another kind of GID on each node: they can't reach each other",
    "mtu": "the larger packets of one node do not reach the other",
    "qos": "traffic is lossless on one side only",
}


def agree(local: Observed, remote: Observed, need: Need | None = None) -> tuple[Check, ...]:
    """Rows that need both nodes. `local` with routes (`with_routes`) gives a `route` row for each of them."""
    need = need or Need()
    case = Case(local, need)
    target = f"{local.hostname or 'here'} - {remote.hostname or 'peer'}"
    rows = [_alike(case, remote, name).row(name, target) for name in ("gidsel", "mtu", "qos")]
    rows += [_route(case, one).row("route", f"{one.nic} to {one.destination}") for one in local.routes]
    if not local.routes:
        rows.append(skip("no RoCE address to route from, or none at the peer").row("route", target))
    return tuple(rows)


def _alike(case: Case, remote: Observed, name: str) -> Finding:
    """Each NIC against the peer's of the same name; NICs without one against all of the peer's."""
    read = PROPERTIES[name]
    ours, theirs = dict(_read(case.observed, case.need, read)), dict(_read(remote, case.need, read))
    if not ours or not theirs:
        return skip("not RoCE, or not known, on one of the nodes")
    for port, value in ours.items():
        other = theirs.get(port)
        if other is None and value not in theirs.values():
            other = next(iter(theirs.values()))
        if other is not None and other != value:
            shown = f"{port}: {value} here, {other} there"
            return Finding(case.grade(port.partition(":")[0]), shown, "alike", CAUSES[name], FIXES[name])
    return ok(", ".join(sorted(set(ours.values()))), "alike")


def _read(observed: Observed, need: Need, read: Property) -> Iterator[tuple[str, str]]:
    for device in observed.devices:
        for port in device.ports if need.uses(device.name) else ():
            value = read(device, port, need) if port.roce and port.active else None
            if value is not None:
                yield f"{device.name}:{port.number}", value


def _gid_kind(_: Device, port: Port, need: Need) -> str | None:
    entry = selected(port, need)
    return kind(entry) if entry else None


def _mtu(device: Device, _: Port, __: Need) -> str | None:
    known = [value for netdev in device.netdevs if (value := netdev.mtu.number()) is not None]
    return str(min(known)) if known else None


def _qos(device: Device, _: Port, __: Need) -> str | None:
    pfc = next((netdev.pfc.text for netdev in device.netdevs if netdev.pfc.text), None)
    ecn = sorted({f"{name}={value}" for netdev in device.netdevs for name, value in netdev.ecn.items()})
    parts = [f"PFC {pfc}" if pfc else "", device.traffic_class.text or "", " ".join(ecn)]
    return ", ".join(part for part in parts if part) or None


PROPERTIES: dict[str, Property] = {"gidsel": _gid_kind, "mtu": _mtu, "qos": _qos}


def _route(case: Case, route: Route) -> Finding:
    """UCX 1.19 and later reach a peer only by the interface that the kernel's route names."""
    if route.taken.text is None:
        no_route = "nreachable" in (route.taken.error or "")
        if not no_route:
            return skip(f"ip route get: {route.taken.error}")
        cause = "the kernel has no route from this NIC's address to the peer's"
        fix = f"ip route add {route.destination} dev {route.netdev}; see that the peer is on this network"
        return Finding(case.grade(route.nic), route.taken.error, route.netdev, cause, fix)
    shown = f"from {route.source} by {route.taken.text}"
    if route.taken.text == route.netdev:
        return ok(shown, route.netdev)
    cause = "the kernel routes by another interface, so UCX (>= 1.19) takes this NIC as unable to reach the peer"
    fix = (
        f"ip rule add from {route.source} table 100; ip route add default dev {route.netdev} table 100 "
        "(a table for each NIC), or UCX_IB_ROCE_REACHABILITY_MODE=all"
    )
    return Finding("warn", shown, route.netdev, cause, fix)
