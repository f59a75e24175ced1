"""An NCCL topology XML into Hardware: a dump (`NCCL_TOPO_DUMP_FILE`) or a cloud vendor's `topo.xml`. Pure.

Format: NCCL's src/graph/xml.cc and topo.cc. `<system><cpu numaid affinity><pci busid class><gpu dev sm><nvlink target
count tclass/></gpu><nic><net name port speed guid/></nic></pci></cpu></system>`; `pci` nests by PCIe switch, of which
NCCL writes one element for the two bridges that the kernel sees. Vendors' files leave `gpu` and `net` out: the class of
the `pci` tells what it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from dynctl.errors import UsageError
from dynctl.hardware.values import Gpu, Hardware, Nic, NicPort, NumaNode
from dynctl.hardware.xml_tree import Element, parse_tree

FIX = "dump it with NCCL_TOPO_DUMP_FILE=topo.xml in a job on one node"
ASSUMED = "an NCCL topology tells neither GPU memory nor who holds a GPU: every GPU is taken to be free"
GUESSED_PORTS = "the XML names no RDMA devices: NIC0, NIC1, ... stand for them, port 1 of each taken to be ACTIVE"
NO_NVLINKS = "the XML names no NVLinks between its GPUs (a dump does, vendors' files do not): none are planned with"
OVERLAPPING = "the XML gives several NUMA nodes the same cores: cores are taken to be unknown"

GPU_CLASSES = (0x0300, 0x0302)
LINK_LAYERS: dict[int, Literal["InfiniBand", "Ethernet"]] = {0x0207: "InfiniBand", 0x0200: "Ethernet"}
NVSWITCH = 0x0680
MAX_NVLINKS = 1024
_BUS_ID = re.compile(r"[0-9a-f]{1,8}(:[0-9a-f]{1,4}){0,2}\.[0-9a-f]{1,2}")
_NUMBER = re.compile(r"-?[0-9]{1,18}|0[xX][0-9a-fA-F]{1,16}")
_MASK = re.compile(r"[0-9a-fA-F]{1,4096}")
_NAME = re.compile(r"[A-Za-z][\w.:-]{0,63}")
_SOCKET = re.compile(r"(eth|ib|bond|lo|docker|veth|br|wlan|hsn|usb)[0-9]*|en[opsx][a-z0-9]+")


class _Place(NamedTuple):
    """Where an element stands: NUMA node, PCI path, bus id and class (`0x0302`) of the nearest `pci` around it."""

    numa: int | None
    cores: tuple[int, ...]
    path: tuple[str, ...] = ()
    bus: str = ""
    kind: int = 0


class _Found(NamedTuple):
    """GPUs and network ports, in document order; the element is None where only its `pci` is there."""

    gpus: list[tuple[Element | None, _Place]]
    nets: list[tuple[Element | None, _Place]]


def parse(data: bytes, source: str) -> Hardware:
    """The machine of a topology XML. UsageError, with the line, for any other XML and for one that does not add up."""
    system = parse_tree(data, source)
    cpus = _cpus(system, source)
    masks = [(_numa(cpu, source), _mask(cpu, source)) for cpu in cpus]
    known = Counter(core for _, cores in masks for core in cores)
    overlap = max(known.values(), default=0) > 1
    found = _Found([], [])
    for cpu, (numa, cores) in zip(cpus, masks, strict=True):
        _walk(cpu, _Place(numa, () if overlap else cores), found, source)
    if not found.gpus and not found.nets:
        raise UsageError(
            "the topology names neither a GPU nor a NIC",
            where=f"{source}:{system.line}",
            why="no `pci` has a class: NCCL completes such a file on the machine itself"
            if _has(system, "pci")
            else None,
            fix=FIX,
        )
    gpus = _gpus(found, source)
    notes = {
        ASSUMED: True,
        GUESSED_PORTS: any(net is None for net, _ in found.nets),
        NO_NVLINKS: len(gpus) > 1 and not any(gpu.nvlinks or gpu.nvswitch_links for gpu in gpus),
        OVERLAPPING: overlap,
    }
    return Hardware(
        source="nccl xml",
        gpus=gpus,
        nics=_nics(found, source),
        numa_nodes=tuple(
            NumaNode(index=numa, cores=() if overlap else cores) for numa, cores in sorted(_merged(masks).items())
        ),
        cores=() if overlap else tuple(sorted(known)),
        notes=tuple(note for note, holds in notes.items() if holds),
    )


def _cpus(system: Element, source: str) -> list[Element]:
    """The `cpu` elements of one host."""
    where = f"{source}:{system.line}"
    if system.tag != "system":
        known = {"graphs": "a graph (NCCL_GRAPH_DUMP_FILE)", "nvidia_smi_log": "the output of `nvidia-smi -q -x`"}
        why = f"it is {known.get(system.tag, f'a <{system.tag[:40]}>')}; a topology is a <system>"
        raise UsageError("the XML is no NCCL topology", where=where, why=why, fix=FIX)
    if system.attributes.get("version", "1") != "1":
        version = system.attributes["version"][:40]
        raise UsageError(f"NCCL topology version {version} is not known; 1 is", where=where, fix=FIX)
    cpus = [element for element in system.children if element.tag == "cpu"]
    hosts = {cpu.attributes["host_hash"] for cpu in cpus if "host_hash" in cpu.attributes}
    if len(hosts) > 1:
        raise UsageError(f"the topology is one of {len(hosts)} hosts together", where=where, fix=FIX)
    return cpus


def _has(element: Element, tag: str) -> bool:
    return any(child.tag == tag or _has(child, tag) for child in element.children)


def _merged(masks: list[tuple[int | None, tuple[int, ...]]]) -> dict[int, tuple[int, ...]]:
    """Cores by NUMA node."""
    nodes: dict[int, tuple[int, ...]] = {}
    for numa, cores in masks:
        if numa is not None:
            nodes[numa] = tuple(sorted({*nodes.get(numa, ()), *cores}))
    return nodes


def _walk(parent: Element, place: _Place, found: _Found, source: str) -> None:
    """Notes the GPUs and network ports below an element."""
    for element in parent.children:
        if element.tag == "pci":
            _pci(element, place, found, source)
        elif element.tag == "gpu":
            found.gpus.append((element, place))
        elif element.tag == "net":
            found.nets.append((element, place))
        elif element.tag == "nic":
            _walk(element, place, found, source)


def _pci(element: Element, place: _Place, found: _Found, source: str) -> None:
    """A switch or a device. A path has the two components per switch that sysfs has, and a root of its own.

    Which devices share a root complex the XML does not tell: those under one CPU, but no switch, count as NODE apart.
    """
    bus = _bus_id(element, "busid", source)
    kind = (_number(element, "class", source) or 0) >> 8
    # what stands between two elements: the root port, or the switch's downstream port
    between = (f"port of {bus}",) if place.path else (f"root of {bus}", f"port of {bus}")
    inner = place._replace(path=(*place.path, *between, bus), bus=bus, kind=kind)
    gpus, nets = len(found.gpus), len(found.nets)
    _walk(element, inner, found, source)
    if kind in GPU_CLASSES and len(found.gpus) == gpus:
        found.gpus.append((None, inner))
    elif kind in LINK_LAYERS and len(found.nets) == nets:
        found.nets.append((None, inner))


def _gpus(found: _Found, source: str) -> tuple[Gpu, ...]:
    """GPUs by index: NCCL's `dev`, which is NVML's, or the order of bus ids, which NVML follows."""
    in_order = sorted(range(len(found.gpus)), key=lambda at: found.gpus[at][1].bus)
    numbers = [_number(element, "dev", source) if element else None for element, _ in found.gpus]
    if None in numbers:
        numbers = [in_order.index(at) for at in range(len(in_order))]
    indexes = [number for number in numbers if number is not None]
    by_bus = {place.bus: index for (_, place), index in zip(found.gpus, indexes, strict=True) if place.bus}
    if len(set(indexes)) < len(indexes) or min(indexes, default=0) < 0:
        raise UsageError("two GPUs of the topology have the same `dev`, or one is negative", where=source, fix=FIX)
    if len(by_bus) < sum(bool(place.bus) for _, place in found.gpus):
        raise UsageError("two GPUs of the topology have the same `busid`", where=source, fix=FIX)
    made = [_gpu(element, place, i, by_bus, source) for (element, place), i in zip(found.gpus, indexes, strict=True)]
    return tuple(sorted(made, key=lambda gpu: gpu.index))


def _gpu(element: Element | None, place: _Place, index: int, by_bus: Mapping[str, int], source: str) -> Gpu:
    generation = _number(element, "sm", source) if element else None
    peers: dict[int, int] = {}
    switched = 0
    for link in element.children if element else ():
        if link.tag != "nvlink":
            continue
        count = _number(link, "count", source)
        if count is None or not 0 < count <= MAX_NVLINKS:
            raise UsageError("an NVLink count must be a small number", where=f"{source}:{link.line}", fix=FIX)
        peer = by_bus.get(_bus_id(link, "target", source))
        if (_number(link, "tclass", source) or 0) >> 8 == NVSWITCH:
            switched += count
        elif peer is not None and peer != index:
            peers[peer] = peers.get(peer, 0) + count
    return Gpu(
        index=index,
        uuid=f"GPU-unknown-{index}",
        name="",
        memory_bytes=0,
        pci=place.bus,
        pci_path=place.path,
        numa=place.numa,
        cores=place.cores,
        compute_capability=f"{generation // 10}.{generation % 10}" if generation else None,
        nvlinks=peers,
        nvswitch_links=switched,
    )


def _nics(found: _Found, source: str) -> tuple[Nic, ...]:
    """RDMA devices by name, their ports together; NCCL lists only ports that are ACTIVE."""
    nics: dict[str, Nic] = {}
    bare = sorted((place for element, place in found.nets if element is None), key=lambda place: place.bus)
    for at, place in enumerate(bare):
        nics[f"NIC{at}"] = _nic(f"NIC{at}", place, NicPort(number=1, state="ACTIVE", phys_state="LinkUp"))
    for net, place in found.nets:
        if net is None:
            continue
        port = _port(net, place, source)
        for name in _net_names(net, source):
            known = nics.get(name)
            if known is None:
                nics[name] = _nic(name, place, port, socket=_is_socket(net))
            elif port.number not in {other.number for other in known.ports}:
                nics[name] = msgspec.structs.replace(known, ports=(*known.ports, port))
    return tuple(nics.values())


def _nic(name: str, place: _Place, port: NicPort, *, socket: bool = False) -> Nic:
    return Nic(
        name=name,
        pci=place.bus,
        pci_path=place.path,
        numa=place.numa,
        ports=(port,),
        bond=name if "bond" in name else None,
        use="unusable" if socket else "kv",
        use_reason="a socket interface in NCCL's topology, no RDMA device" if socket else None,
    )


def _net_names(net: Element, source: str) -> list[str]:
    """Device names of a `net`: NCCL joins those it merges, `mlx5_0+mlx5_1`."""
    names = net.attributes.get("name", "").split("+")
    if not all(map(_NAME.fullmatch, names)):
        raise UsageError("a <net> has no usable name", where=f"{source}:{net.line}", fix=FIX)
    return names


def _is_socket(net: Element) -> bool:
    """Whether NCCL reaches it by its socket transport, which numbers no port and has no GUID."""
    numbers = {net.attributes.get("port", "0"), net.attributes.get("guid", "0").removeprefix("0x")}
    return numbers == {"0"} or _SOCKET.fullmatch(net.attributes["name"]) is not None


def _port(net: Element, place: _Place, source: str) -> NicPort:
    megabits = _number(net, "speed", source) or 0
    return NicPort(
        number=max(1, _number(net, "port", source) or 1),
        state="ACTIVE",
        phys_state="LinkUp",
        rate_gigabits_per_s=megabits / 1000 if megabits > 0 else None,
        link_layer=LINK_LAYERS.get(place.kind),
    )


def _number(element: Element, name: str, source: str) -> int | None:
    """An attribute as an integer, decimal or hexadecimal with 0x; None where it is not there or empty."""
    text = element.attributes.get(name, "")
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        where = f"{source}:{element.line}"
        raise UsageError(f"{name}={text[:40]!r} of <{element.tag}> is no number", where=where, fix=FIX)
    return int(text, 16 if "x" in text else 10)


def _bus_id(element: Element, name: str, source: str) -> str:
    text = element.attributes.get(name, "").lower()
    if not _BUS_ID.fullmatch(text):
        where = f"{source}:{element.line}"
        raise UsageError(f"{name}={text[:40]!r} of <{element.tag}> is no PCI bus id", where=where, fix=FIX)
    return text


def _numa(cpu: Element, source: str) -> int | None:
    number = _number(cpu, "numaid", source)
    return number if number is not None and number >= 0 else None


def _mask(cpu: Element, source: str) -> tuple[int, ...]:
    """Cores of `affinity`, words of a hexadecimal mask, the highest first; none where it is empty."""
    text = cpu.attributes.get("affinity", "")
    digits = text.replace(",", "").removeprefix("0x")
    if not digits:
        return ()
    if not _MASK.fullmatch(digits):
        where = f"{source}:{cpu.line}"
        raise UsageError(f"affinity={text[:40]!r} is no mask of cores", where=where, fix=FIX)
    bits = int(digits, 16)
    return tuple(core for core in range(bits.bit_length()) if bits >> core & 1)
