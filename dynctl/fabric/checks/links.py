"""PCIe: link speeds hop by hop, read requests, ACS, relaxed ordering, and how far GPUs are from NICs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dynctl.fabric.checks.case import Case, Finding, Subject, ok, skip
from dynctl.fabric.checks.values import Device, Observed, PciFunction
from dynctl.hardware.distance import pci_distance
from dynctl.hardware.values import DISTANCES, Distance

BEST_READ_REQUEST_BYTES = 4096
BRIDGE = "0x0604"
NEEDS_ROOT = "only root reads PCI configuration space past 64 bytes"
MOST_NAMED = 4


def judge_pcie(case: Case, subject: Subject) -> Finding:
    """pcie: every hop to the root trained as fast and wide as both its ends can. A GPU's speed counts only under load,
    so only its width is judged.
    """
    function = subject.function
    if function is None:
        return skip("its PCI function is not known")
    if function.virtual:
        return skip("a virtual function: its link is the physical function's")
    gpu = subject.device is None
    wanted, seen = "", 0
    for child, parent, address in _hops(case.observed, function):
        now = (None if gpu else gigatransfers_per_s(child.speed.text), _width(child.width.text))
        most = (_least(child.max_speed.text, parent.max_speed.text), _least_width(child, parent))
        seen += any(value is not None for value in now)
        wanted = wanted or f"{_link(most[0], most[1])}"
        if any(n is not None and m is not None and n < m for n, m in zip(now, most, strict=True)):
            cause = "the link trained down: seating, riser, retimer or a BIOS setting"
            shown = f"{address}: {_link(gigatransfers_per_s(child.speed.text), now[1])}"
            status = "warn" if gpu else case.grade(subject.name)
            return Finding(status, shown, _link(*most), cause, f"reseat, BIOS; look: lspci -vvs {address} | grep Lnk")
    if not seen:
        return skip(
            f"no link to a bridge in sysfs: {function.speed.error or 'a virtual machine, or built into the CPU'}"
        )
    return ok(_link(gigatransfers_per_s(function.speed.text), _width(function.width.text)), wanted)


def judge_mrrs(_: Case, subject: Subject) -> Finding:
    """mrrs: small read requests keep a fast NIC from filling its link."""
    function = subject.function
    if function is None:
        return skip("its PCI function is not known")
    if function.virtual:
        return skip("a virtual function: the physical function's counts")
    if function.max_read_request_bytes is None:
        return skip(_config_reason(function, "no PCI Express capability"))
    size = function.max_read_request_bytes
    if size >= BEST_READ_REQUEST_BYTES:
        return ok(f"{size} bytes", f"{BEST_READ_REQUEST_BYTES} bytes")
    address = function.path[-1] if function.path else subject.name
    cause = "reads from host or GPU memory come in small pieces"
    fix = f"setpci -s {address} CAP_EXP+8.w=5000:7000 (until reboot), or the BIOS"
    return Finding("warn", f"{size} bytes", f"{BEST_READ_REQUEST_BYTES} bytes", cause, fix)


def judge_acs(case: Case, _: Subject) -> Finding:
    """acs: with ACS on, traffic between a GPU and a NIC goes up to the root complex and back."""
    observed = case.observed
    if observed.host.virtual_machine:
        return skip("a virtual machine: the hypervisor decides")
    bridges = {address: f for address, f in observed.pci.items() if f.kind.startswith(BRIDGE)}
    if not bridges:
        return skip("no PCI bridge above a NIC or GPU")
    short = [f for f in bridges.values() if f.config_bytes <= 256]
    on = [address for address, f in bridges.items() if f.acs_control]
    if on:
        shown = ", ".join(on[:MOST_NAMED]) + (f" and {len(on) - MOST_NAMED} more" if len(on) > MOST_NAMED else "")
        cause = "traffic between GPU and NIC takes the way through the root complex"
        fix = f"for b in {' '.join(on)}; do setpci -s $b ECAP_ACS+6.w=0; done (until reboot), or the BIOS"
        return Finding("warn", f"on at {shown}", "off", cause, fix)
    if short:
        return skip(_config_reason(short[0], "their extended configuration space is not there"))
    return ok(f"off at {len(bridges)} bridges", "off")


def judge_ro(case: Case, _: Subject) -> Finding:
    """ro: relaxed ordering; NIXL asks for it, and some CPUs are slow without."""
    if not case.observed.devices:
        return skip("no RDMA device")
    setting = case.need.setting("UCX_IB_PCI_RELAXED_ORDERING")
    shown = f"UCX_IB_PCI_RELAXED_ORDERING={setting}" if setting else "NIXL sets UCX_IB_PCI_RELAXED_ORDERING=try"
    if (setting or "").lower() in ("n", "no", "off", "0"):
        cause = "without relaxed ordering some CPUs (Emerald Rapids) write at less than half the rate"
        return Finding("warn", shown, "try or on", cause, "remove UCX_IB_PCI_RELAXED_ORDERING from transport.env")
    return ok(f"{shown}; CPU: {case.observed.host.cpu or 'not known'}", "try or on")


def judge_topo(case: Case, subject: Subject) -> Finding:
    """topo: each GPU of a worker has the nearest NIC there is."""
    worker = subject.worker
    if worker is None or not worker.gpus:
        return skip("no GPU is planned for it")
    if not worker.nics:
        return skip("no NIC is planned for it: UCX chooses")
    shown, worst = [], None
    for gpu in worker.gpus:
        near, best = _nearest(case.observed, gpu, worker.nics), _nearest(case.observed, gpu, None)
        if near is None or best is None:
            continue
        shown.append(f"{gpu} {near[1].name} {near[0]}")
        if DISTANCES.index(near[0]) > max(DISTANCES.index(best[0]), DISTANCES.index("PXB")):
            worst = max(worst or (0, gpu, near, best), (DISTANCES.index(near[0]), gpu, near, best), key=lambda x: x[0])
    if not shown:
        return skip("the PCI paths of its GPUs or NICs are not known")
    if worst is None:
        return ok(", ".join(shown), "the nearest NIC")
    _, gpu, near, best = worst
    cause = f"{near[1].name} is {near[0]} from GPU {gpu}, {best[1].name} only {best[0]}"
    fix = f"pin it: `pin: [{{gpus: [...], nics: [{best[1].name}]}}]` for {worker.id}"
    status = case.grade(near[1].name) if near[0] == "SYS" else "warn"
    return Finding(status, ", ".join(shown), f"{best[1].name} ({best[0]})", cause, fix)


def judge_numa(case: Case, subject: Subject) -> Finding:
    """numa: GPU and NIC on one NUMA node."""
    worker = subject.worker
    if worker is None or not worker.gpus or not worker.nics:
        return skip("no GPU or no NIC is planned for it")
    shown = []
    for gpu in worker.gpus:
        near = _nearest(case.observed, gpu, worker.nics)
        function = case.observed.pci.get(gpu)
        other = case.observed.pci.get(near[1].pci) if near else None
        if near is None or function is None or other is None:
            continue
        left, right = function.numa.number(), other.numa.number()
        if left is None or right is None or left < 0 or right < 0:
            return skip(
                "the BIOS does not say the NUMA node", f"{gpu} {function.numa.shown()}, NIC {other.numa.shown()}"
            )
        shown.append(f"{gpu} on {left}, {near[1].name} on {right}")
        if left != right:
            cause = "GPU and NIC are on different sockets"
            return Finding("warn", shown[-1], "one NUMA node", cause, "BIOS: NUMA nodes per socket; move a card")
    return ok(", ".join(shown), "one NUMA node") if shown else skip("its PCI functions are not known")


def distance(observed: Observed, gpu: str, device: Device) -> Distance | None:
    """PCIe distance of a GPU and an RDMA device; None where a path is not known."""
    one, two = observed.pci.get(gpu), observed.pci.get(device.pci)
    if one is None or two is None:
        return None
    return pci_distance(one.path, two.path, one.numa.number(), two.numa.number())


def gigatransfers_per_s(text: str | None) -> float | None:
    """`32.0 GT/s PCIe` -> 32.0; `Unknown` -> None."""
    found = re.match(r"([0-9]{1,3}(?:\.[0-9]{1,2})?) GT/s", text or "")
    return float(found[1]) if found else None


def _nearest(observed: Observed, gpu: str, among: tuple[str, ...] | None) -> tuple[Distance, Device] | None:
    """The nearest usable device; `among`: of those names only."""
    found = [
        (DISTANCES.index(far), rank, device)
        for rank, device in enumerate(observed.devices)
        if (among is None and any(port.active for port in device.ports)) or (among and device.name in among)
        if (far := distance(observed, gpu, device)) is not None
    ]
    if not found:
        return None
    rank, _, device = min(found, key=lambda item: item[:2])
    return DISTANCES[rank], device


def _hops(observed: Observed, function: PciFunction) -> Iterator[tuple[PciFunction, PciFunction, str]]:
    """Links up to the root as (lower end, upper end, the lower's address). Between the ports inside of one switch
    there is no link, so every second step is left out.
    """
    path = function.path
    for index in range(len(path) - 1, 1, -2):
        child, parent = observed.pci.get(path[index]), observed.pci.get(path[index - 1])
        if child is not None and parent is not None:
            yield child, parent, path[index]


def _least(*texts: str | None) -> float | None:
    known = [found for text in texts if (found := gigatransfers_per_s(text)) is not None]
    return min(known, default=None)


def _least_width(*functions: PciFunction) -> int | None:
    return min((found for f in functions if (found := _width(f.max_width.text)) is not None), default=None)


def _width(text: str | None) -> int | None:
    """A width in lanes; sysfs says 0, 63 or 255 where there is no link."""
    return int(text) if text in ("1", "2", "4", "8", "12", "16", "32") else None


def _link(speed: float | None, width: int | None) -> str:
    return f"{f'{speed:g} GT/s' if speed is not None else 'speed not known'} x{width if width is not None else '?'}"


def _config_reason(function: PciFunction, otherwise: str) -> str:
    if function.config_error is not None:
        return f"its configuration space can't be read: {function.config_error}"
    return NEEDS_ROOT if function.config_bytes <= 64 else otherwise
