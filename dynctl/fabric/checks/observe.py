"""Reads a node: everything the checks judge, below a root, changing nothing."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dynctl.fabric.checks import read_pci
from dynctl.fabric.checks.gids import ipv4
from dynctl.fabric.checks.read_devices import read_devices
from dynctl.fabric.checks.read_host import read_host
from dynctl.fabric.checks.tree import names, read
from dynctl.fabric.checks.values import Need, Observed, Reading, Route

MOST_ROUTES = 64


def observe(root: Path = Path("/"), need: Need | None = None) -> Observed:
    """The node as it is now. Never raises: what can't be read says why, in its place."""
    devices, error = read_devices(root)
    nics, gpus = read_pci.find(root)
    planned = {gpu for worker in need.workers for gpu in worker.gpus} if need else set()
    addresses = dict.fromkeys((*nics, *gpus, *(device.pci for device in devices if device.pci), *sorted(planned)))
    return Observed(
        hostname=read(root / "proc/sys/kernel/hostname").text or "",
        devices=devices,
        devices_error=error,
        nics=nics,
        gpus=gpus,
        pci=read_pci.read_functions(root, addresses),
        netdevs=names(root / "sys/class/net"),
        host=read_host(root),
    )


def with_routes(local: Observed, remote: Observed, need: Need) -> Observed:
    """`local` with the routes from each of its RoCE addresses to the peer's of the same rank: asks `ip route get`."""
    ours, theirs = list(_addresses(local, need)), list(_addresses(remote, need))
    pairs = zip(ours, theirs, strict=False) if len(ours) == len(theirs) else ((o, t) for o in ours for t in theirs)
    found = [
        Route(nic=nic, source=source, destination=target, netdev=netdev, taken=_route(source, target))
        for (nic, netdev, source), (_, _, target) in list(pairs)[:MOST_ROUTES]
    ]
    return msgspec.structs.replace(local, routes=tuple(found))


def _addresses(observed: Observed, need: Need) -> Iterable[tuple[str, str, str]]:
    """(NIC, interface, IPv4 address) of every RoCE port that the plan may use."""
    for device in observed.devices:
        for port in device.ports if need.uses(device.name) else ():
            address = next((found for gid in port.gids if (found := ipv4(gid))), None)
            netdev = next((gid.netdev for gid in port.gids if gid.netdev), None)
            if port.roce and address and netdev:
                yield device.name, netdev, address


def _route(source: str, destination: str) -> Reading:
    """The interface that `ip route get` names, or why there is none."""
    argv = ["ip", "-j", "route", "get", destination, "from", source]
    try:
        done = subprocess.run(argv, capture_output=True, timeout=5, check=False)
        if done.returncode != 0:
            return Reading(None, done.stderr.decode("utf-8", "replace").strip()[:200] or f"ip gave {done.returncode}")
        return Reading(str(json.loads(done.stdout)[0]["dev"]), None)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Reading(None, f"{type(error).__name__}: {error}"[:200])
    except (ValueError, LookupError, TypeError):
        return Reading(None, "ip printed no route")
