"""What was read from a node, and what the plan needs of it: values that can be sent to the other node.

A `Reading` keeps why a file could not be read. Sizes are bytes; texts are as the kernel wrote them, stripped.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dynctl.hardware.values import Cma, Gid
from dynctl.plan.values import TransportClass

CAP_IPC_LOCK = 14


class Reading(msgspec.Struct, frozen=True):
    """The text of a file, or the name of the error (`EACCES`) that reading it gave."""

    text: str | None = None
    error: str | None = None

    def number(self) -> int | None:
        """The text as a decimal integer of at most 63 bits and a sign; None if it is not one."""
        try:
            value = int(self.text or "")
        except ValueError:
            return None
        return value if -(1 << 63) <= value < 1 << 63 else None

    def shown(self) -> str:
        """The text, or the error in brackets."""
        return self.text if self.text is not None else f"({self.error or 'not read'})"


NOT_READ = Reading()


class Netdev(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface of an RDMA device. `flags`: hexadecimal IFF_*; `pfc`: one 0 or 1 for each priority;
    `ecn`: notification or reaction point on, by file (`roce_np/enable/3`). Both only with drivers that show them.
    """

    name: str
    mtu: Reading = NOT_READ
    operstate: Reading = NOT_READ
    flags: Reading = NOT_READ
    pfc: Reading = NOT_READ
    ecn: dict[str, str] = {}


class Port(msgspec.Struct, frozen=True, kw_only=True):
    """A port of an RDMA device. `gids`: entries that are not zero; `gids_error`: why there is no table."""

    number: int
    state: Reading = NOT_READ
    phys_state: Reading = NOT_READ
    rate: Reading = NOT_READ
    link_layer: Reading = NOT_READ
    gids: tuple[Gid, ...] = ()
    gids_error: str | None = None
    counters: dict[str, int] = {}
    hw_counters: dict[str, int] = {}

    @property
    def roce(self) -> bool:
        """Whether its link layer is Ethernet."""
        return self.link_layer.text == "Ethernet"

    @property
    def state_word(self) -> str | None:
        """`4: ACTIVE` -> `ACTIVE`; None where it was not read."""
        return _word(self.state)

    @property
    def phys_state_word(self) -> str | None:
        """`5: LinkUp` -> `LinkUp`; None where it was not read."""
        return _word(self.phys_state)

    @property
    def active(self) -> bool:
        """Whether it can carry traffic."""
        return self.state_word == "ACTIVE" and self.phys_state_word == "LinkUp"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """An RDMA device. `pci`: its address, a key of `Observed.pci`; `uverbs`: its character device (`uverbs0`), and
    `uverbs_error` why that can't be opened; `traffic_class`: of `tc/1/traffic_class`.
    """

    name: str
    pci: str = ""
    netdevs: tuple[Netdev, ...] = ()
    ports: tuple[Port, ...] = ()
    uverbs: str | None = None
    uverbs_error: str | None = None
    traffic_class: Reading = NOT_READ


class PciFunction(msgspec.Struct, frozen=True, kw_only=True):
    """A PCI function. `path`: components below /sys/devices, root complex first; `kind`: the class word (`0x020700`).

    Links are as sysfs says them (`32.0 GT/s PCIe`, `16`). `config_bytes`: how much of the configuration space could be
    read (64 unless root); `max_read_request_bytes`, `acs_control`: None where it lacks them or they were not readable.
    """

    path: tuple[str, ...] = ()
    vendor: str = ""
    device: str = ""
    kind: str = ""
    driver: str | None = None
    numa: Reading = NOT_READ
    speed: Reading = NOT_READ
    width: Reading = NOT_READ
    max_speed: Reading = NOT_READ
    max_width: Reading = NOT_READ
    virtual: bool = False
    config_bytes: int = 0
    config_error: str | None = None
    max_read_request_bytes: int | None = None
    acs_control: int | None = None
    iommu: Reading = NOT_READ


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """The node beside its devices. `*_error`: why a limit is not known. `capabilities`: the effective mask.

    `nvidia`: the driver's version line; `peermem`: the module that lets NICs reach GPU memory; `gdrdrv`: None where
    /dev/gdrdrv is there, else why not. `netns`, `init_netns`: of this process and of pid 1.
    """

    kernel: Reading = NOT_READ
    limits_error: str | None = None
    memlock: str | None = None
    nofile: str | None = None
    nofile_hard: str | None = None
    capabilities: int | None = None
    seccomp: str | None = None
    shm_bytes: int | None = None
    shm_error: str | None = None
    netns: Reading = NOT_READ
    init_netns: Reading = NOT_READ
    container: str | None = None
    virtual_machine: bool = False
    cpu: str | None = None
    nvidia: Reading = NOT_READ
    peermem: str | None = None
    gdrdrv: str | None = None
    cma: Cma = Cma(allowed=False, reason="not looked up")

    def has_capability(self, bit: int) -> bool:
        """Whether that capability is effective."""
        return self.capabilities is not None and bool(self.capabilities >> bit & 1)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Which interface the kernel would take from one of our addresses to one of the peer's, and for which NIC."""

    nic: str
    source: str
    destination: str
    netdev: str
    taken: Reading


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """A node as it was read. `gpus`, `nics`: PCI addresses of NVIDIA GPUs and of Mellanox network functions.

    `pci`: those, the RDMA devices and every bridge above them. `netdevs`: names of all network interfaces.
    """

    schema: int = 1
    hostname: str = ""
    devices: tuple[Device, ...] = ()
    devices_error: str | None = None
    nics: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    pci: dict[str, PciFunction] = {}
    netdevs: tuple[str, ...] = ()
    host: Host = Host()
    routes: tuple[Route, ...] = ()

    def device(self, name: str) -> Device | None:
        """The RDMA device of that name."""
        return next((device for device in self.devices if device.name == name), None)


class WorkerNeed(msgspec.Struct, frozen=True, kw_only=True):
    """One worker of the plan: its NICs by RDMA name, its GPUs by PCI address (`0000:18:00.0`), its environment."""

    id: str
    nics: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    env: dict[str, str] = {}


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan needs. `path`: the class of KV path that must work, which decides what fails and what warns."""

    path: TransportClass = "tcp"
    workers: tuple[WorkerNeed, ...] = ()
    has_gpu: bool = False

    @property
    def rdma(self) -> bool:
        """Whether the KV path must be RDMA."""
        return self.path == "rdma"

    def nics(self) -> frozenset[str]:
        """Every NIC that a worker of the plan was given; empty: UCX takes what there is."""
        return frozenset(name for worker in self.workers for name in worker.nics)

    def uses(self, device: str) -> bool:
        """Whether the plan may use this RDMA device."""
        return not self.nics() or device in self.nics()

    def setting(self, name: str) -> str | None:
        """A variable's value in the workers' environments: the first that sets it."""
        return next((worker.env[name] for worker in self.workers if worker.env.get(name)), None)


class Since(msgspec.Struct, frozen=True, kw_only=True):
    """An earlier observation of the same node, and the seconds between: counters are judged by their growth."""

    earlier: Observed
    seconds: float


Severity = Literal["warn", "fail"]


def _word(reading: Reading) -> str | None:
    text = reading.text
    return (text.partition(":")[2].strip() or text) if text else None
