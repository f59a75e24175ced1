"""RDMA devices below a root: ports, GID tables, counters, network interfaces, character devices."""

from __future__ import annotations

from pathlib import Path

from dynctl.fabric.checks.tree import can_open, device_path, listing, names, read
from dynctl.fabric.checks.values import Device, Netdev, Port
from dynctl.hardware.values import Gid

COUNTERS = (
    *("symbol_error", "link_downed", "link_error_recovery", "port_rcv_errors", "local_link_integrity_errors"),
    *("port_xmit_discards", "port_xmit_data", "port_rcv_data"),
)
HW_COUNTERS = (
    *("local_ack_timeout_err", "packet_seq_err", "out_of_sequence", "rnr_nak_retry_err"),
    *("req_transport_retries_exceeded", "roce_adp_retrans_to", "np_cnp_sent", "rp_cnp_handled"),
)
MOST_PORTS = 16
MOST_GIDS = 1024


def read_devices(root: Path) -> tuple[tuple[Device, ...], str | None]:
    """All RDMA devices by name, and why there is no list."""
    base = root / "sys/class/infiniband"
    found, error = listing(base)
    verbs = _verbs(root)
    return tuple(_device(root, base / name, verbs.get(name)) for name in found if (base / name).is_dir()), error


def _verbs(root: Path) -> dict[str, str]:
    """RDMA device name -> `uverbs0`."""
    base = root / "sys/class/infiniband_verbs"
    found = {name: read(base / name / "ibdev").text for name in names(base)}
    return {device: name for name, device in found.items() if device}


def _device(root: Path, path: Path, uverbs: str | None) -> Device:
    components = device_path(root, path / "device")
    ports = [name for name in names(path / "ports") if name.isdecimal() and len(name) < 4][:MOST_PORTS]
    return Device(
        name=path.name,
        pci=components[-1] if components else "",
        netdevs=tuple(_netdev(root, name) for name in names(path / "device/net")),
        ports=tuple(_port(path / "ports" / name) for name in ports),
        uverbs=uverbs,
        uverbs_error=can_open(root / "dev/infiniband" / uverbs) if uverbs and "/" not in uverbs else "no uverbs device",
        traffic_class=read(path / "tc/1/traffic_class"),
    )


def _netdev(root: Path, name: str) -> Netdev:
    path = root / "sys/class/net" / name
    ecn = {
        f"{point}/enable/{priority}": text
        for point in ("roce_np", "roce_rp")
        for priority in names(path / "ecn" / point / "enable")
        if (text := read(path / "ecn" / point / "enable" / priority).text) is not None
    }
    return Netdev(
        name=name,
        mtu=read(path / "mtu"),
        operstate=read(path / "operstate"),
        flags=read(path / "flags"),
        pfc=read(path / "qos/pfc"),
        ecn=ecn,
    )


def _port(path: Path) -> Port:
    gids, error = _gids(path)
    return Port(
        number=int(path.name),
        state=read(path / "state"),
        phys_state=read(path / "phys_state"),
        rate=read(path / "rate"),
        link_layer=read(path / "link_layer"),
        gids=gids,
        gids_error=error,
        counters=_counters(path / "counters", COUNTERS),
        hw_counters=_counters(path / "hw_counters", HW_COUNTERS),
    )


def _gids(path: Path) -> tuple[tuple[Gid, ...], str | None]:
    """Entries that are not zero, and the first error. An empty entry's type and interface read as EINVAL."""
    indexes, error = listing(path / "gids")
    found = []
    for name in [name for name in indexes if name.isdecimal()][:MOST_GIDS]:
        gid = read(path / "gids" / name)
        error = error or gid.error
        if gid.text and gid.text.strip("0:"):
            kind, netdev = read(path / "gid_attrs/types" / name), read(path / "gid_attrs/ndevs" / name)
            found.append(Gid(index=int(name), gid=gid.text[:64], type=kind.text, netdev=netdev.text))
    return tuple(found), error


def _counters(path: Path, wanted: tuple[str, ...]) -> dict[str, int]:
    found = {name: read(path / name).number() for name in wanted}
    return {name: value for name, value in found.items() if value is not None}
