"""Devices and their ports: driver, character device, state, rate, interface, MTU, quality of service. Pure."""

from __future__ import annotations

import re

from dynctl.fabric.checks.case import HOST, Case, Finding, Subject, because, ok, skip
from dynctl.fabric.checks.values import Netdev, Port

LEAST_MTU = 4200
IFF_UP = 1
CONTAINER_FIX = "pass /dev/infiniband into the container (`--device /dev/infiniband`), or mend its permissions"
INSTALL = "modprobe mlx5_ib"


def judge_dev(case: Case, subject: Subject) -> Finding:
    """dev: every NIC on the PCI bus, and every NIC of the plan, has an RDMA device."""
    observed, need = case.observed, case.need
    if subject.device is not None:
        return ok(f"/sys/class/infiniband/{subject.name}")
    if subject.function is not None:
        if subject.function.virtual or subject.function.driver == "vfio-pci":
            what = "a virtual function" if subject.function.virtual else "bound to vfio-pci"
            return skip(f"{what} without an RDMA device: it is another machine's to use")
        missing = not observed.devices or bool(need.nics() - {device.name for device in observed.devices})
        cause, fix = "its RDMA driver is not loaded", INSTALL
        if observed.host.container or observed.host.netns != observed.host.init_netns:
            cause += ", or its RDMA device is in another network namespace"
            fix += "; in a container use the host's network, and pass /dev/infiniband in"
        return Finding(
            case.grade() if missing or not need.nics() else "warn",
            f"a NIC with driver {subject.function.driver or 'none'}, not in /sys/class/infiniband",
            "an RDMA device",
            cause,
            fix,
        )
    if subject.name != HOST:
        found = ", ".join(device.name for device in observed.devices) or "none"
        fix = "correct `pin` in the topology"
        return Finding(
            case.grade(), f"devices here: {found}", subject.name, "the plan names a NIC that is not here", fix
        )
    if observed.devices_error not in (None, "ENOENT"):
        return skip(f"/sys/class/infiniband can't be read: {observed.devices_error}")
    if not need.rdma:
        return skip("no RDMA device and no such NIC on this machine")
    fix = f"`{INSTALL}`; in a container pass the devices in; or set `transport: {{require: auto}}`"
    return Finding("fail", "no RDMA device", "a NIC", "no RDMA device and no Mellanox NIC on the PCI bus", fix)


def judge_uverbs(case: Case, subject: Subject) -> Finding:
    """uverbs: the character device opens, or nothing in user space can use the NIC."""
    device = subject.device
    if device is None:
        return skip("no device")
    if device.uverbs is not None and device.uverbs_error is None:
        return ok(f"/dev/infiniband/{device.uverbs} opens", "opens for reading and writing")
    name = f"/dev/infiniband/{device.uverbs}" if device.uverbs else "no entry in /sys/class/infiniband_verbs"
    return Finding(
        case.grade(device.name),
        f"{name}: {device.uverbs_error}" if device.uverbs else name,
        "opens for reading and writing",
        "the module ib_uverbs is not loaded" if not device.uverbs else "the device file is not here or not permitted",
        "modprobe ib_uverbs" if not device.uverbs else CONTAINER_FIX,
    )


def judge_ndev(case: Case, subject: Subject) -> Finding:
    """ndev: the interface of a RoCE port is up. A port that lost its link is the row `state`."""
    device = subject.device
    if device is None or not any(port.roce for port in device.ports):
        return skip("InfiniBand needs no network interface")
    if not device.netdevs:
        return skip("no network interface here: it may be in another network namespace")
    for netdev in device.netdevs:
        flags = _hexadecimal(netdev.flags.text)
        if flags is not None and not flags & IFF_UP:
            return _interface_down(case, device.name, netdev, "it was never brought up")
        if netdev.operstate.text in ("down", "lowerlayerdown", "notpresent"):
            if not all(port.active for port in device.ports):
                return because("state")
            return _interface_down(case, device.name, netdev, "the interface has no carrier, though the port is ACTIVE")
    if all(netdev.operstate.text is None for netdev in device.netdevs):
        return skip(f"operstate can't be read: {device.netdevs[0].operstate.error}")
    return ok(", ".join(f"{netdev.name} {netdev.operstate.shown()}" for netdev in device.netdevs), "up")


def judge_state(case: Case, subject: Subject) -> Finding:
    """state: UCX drops a port that is not ACTIVE, with only a trace message."""
    port, device = subject.port, subject.device
    if port is None or device is None:
        return skip("no port")
    shown, wanted = f"{port.state.shown()}, {port.phys_state.shown()}", "4: ACTIVE, 5: LinkUp"
    if port.active:
        return ok(shown, wanted)
    if port.state.text is None or port.phys_state.text is None:
        return skip("its state can't be read", shown)
    if port.state_word == "INIT":
        cause, fix = "no subnet manager has set this port up", "start one: `systemctl start opensm`, or on the switch"
    elif port.phys_state_word in ("Polling", "Sleep"):
        cause, fix = (
            "no link: cable, transceiver or the switch's port",
            f"check the cable; `mlxlink -d {device.name}`, `ibstat`",
        )
    else:
        netdev = device.netdevs[0].name if device.netdevs else "INTERFACE"
        cause = "the port is down"
        fix = f"ip link set {netdev} up" if port.roce else f"ibportstate -C {device.name} -D 0 {port.number} enable"
    return Finding(case.grade(device.name), shown, wanted, cause, fix)


def judge_rate(case: Case, subject: Subject) -> Finding:
    """rate: no slower than the best of its peers, and all of one link layer."""
    port, device = subject.port, subject.device
    if port is None or device is None:
        return skip("no port")
    if not case.need.uses(device.name):
        return skip("not used by the plan", port.rate.shown())
    rate = gigabits_per_s(port)
    if rate is None:
        return skip("its rate can't be read", port.rate.shown())
    peers = [
        (other, found)
        for one in case.observed.devices
        if case.need.uses(one.name)
        for other in one.ports
        if other.active and (found := gigabits_per_s(other)) is not None
    ]
    best = max((found for other, found in peers if other.link_layer == port.link_layer), default=rate)
    if rate < best:
        cause, fix = (
            "slower than its peers: cable, FEC or the switch's port",
            f"mlxlink -d {device.name} --show_fec; cable",
        )
        return Finding("warn", f"{rate:g} Gb/s", f"{best:g} Gb/s", cause, fix)
    layers = [other.link_layer.text for other, _ in peers]
    most = max(set(layers), key=layers.count, default=port.link_layer.text)
    if port.link_layer.text != most:
        cause = "InfiniBand and Ethernet are mixed: peers can't reach each other"
        fix = "name NICs of one kind: `pin` in the topology, or UCX_NET_DEVICES"
        return Finding("warn", f"{rate:g} Gb/s {port.link_layer.shown()}", str(most), cause, fix)
    return ok(f"{rate:g} Gb/s {port.link_layer.shown()}", f"{best:g} Gb/s")


def judge_mtu(case: Case, subject: Subject) -> Finding:
    """mtu: an Ethernet MTU below 4200 keeps RoCE below its own 4096."""
    port, device = subject.port, subject.device
    if port is None or device is None or not port.roce:
        return skip("InfiniBand: the subnet manager sets it")
    known = [(found, netdev) for netdev in device.netdevs if (found := netdev.mtu.number()) is not None]
    if not known:
        why = device.netdevs[0].mtu.error if device.netdevs else "no network interface here"
        return skip(f"the MTU can't be read: {why}")
    least, netdev = min(known, key=lambda pair: pair[0])
    if least < LEAST_MTU:
        cause = "RoCE's own MTU of 4096 does not fit"
        fix = f"ip link set {netdev.name} mtu 9000 (and the switch); prove it: ping -M do -s 8972 PEER"
        return Finding("warn", str(least), f">= {LEAST_MTU}", cause, fix)
    return ok(str(least), f">= {LEAST_MTU}")


def judge_qos(case: Case, subject: Subject) -> Finding:
    """qos: RoCE that is neither lossless (PFC) nor slowed down in time (ECN) loses packets under load."""
    port, device = subject.port, subject.device
    if port is None or device is None or not port.roce:
        return skip("InfiniBand has its own flow control")
    pfc = [netdev.pfc.text for netdev in device.netdevs if netdev.pfc.text]
    ecn = [value for netdev in device.netdevs for value in netdev.ecn.values()]
    if not pfc and not ecn:
        return skip("this driver shows PFC and ECN in no file: see `dcb pfc show dev INTERFACE`, `mlnx_qos -i`")
    shown = f"PFC {pfc[0] if pfc else 'not shown'}, ECN on {sum(_on(value) for value in ecn)} of {len(ecn)}"
    if device.traffic_class.text:
        shown += f", {device.traffic_class.text}"
    if any(_on(value) for value in (*pfc, *ecn)):
        return ok(shown, "PFC or ECN")
    cause = "neither PFC nor ECN is on: RoCE loses packets under load"
    fix = f"mlnx_qos -i {device.netdevs[0].name} --trust dscp --pfc 0,0,0,1,0,0,0,0 (and the switch alike)"
    return Finding("warn", shown, "PFC or ECN", cause, fix)


def gigabits_per_s(port: Port) -> float | None:
    """`400 Gb/sec (4X NDR)` -> 400.0"""
    found = re.match(r"([0-9]{1,5}(?:\.[0-9]{1,3})?) Gb/sec", port.rate.text or "")
    return float(found[1]) if found else None


def _interface_down(case: Case, device: str, netdev: Netdev, cause: str) -> Finding:
    fix = f"ip link set {netdev.name} up"
    return Finding(case.grade(device), f"{netdev.name} {netdev.operstate.shown()}", "up", cause, fix)


def _on(value: str) -> bool:
    return "1" in re.findall(r"[0-9]+", value)


def _hexadecimal(text: str | None) -> int | None:
    try:
        return int(text or "", 16)
    except ValueError:
        return None
