"""What a machine has, as values: GPUs, RDMA devices, NUMA nodes, limits, and whether CMA is possible.

Everything here can be written to a snapshot and read back; `docs/hardware.md` describes the JSON.
"""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

Distance = Literal["PIX", "PXB", "PHB", "NODE", "SYS"]
"""PCIe distance as `nvidia-smi topo -m` names it, nearest first."""

DISTANCES: tuple[Distance, ...] = get_args(Distance)

NicUse = Literal["kv", "management", "storage", "unusable"]
"""What a NIC is for. Only `kv` NICs are ever given to a worker without a pin."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that uses a GPU. `pid` and `command` None: NVML's pid can't be matched here (another pid namespace).

    `kind`: `run`: of a dynctl run that lives; `orphan`: of a dynctl run whose supervisor is gone; `other`: anybody's;
    `unknown`: can't be told. `run`: that run's name.
    """

    pid: int | None = None
    command: str | None = None
    kind: Literal["run", "orphan", "other", "unknown"] = "unknown"
    run: str | None = None

    def text(self) -> str:
        """In words: `pid 4121 (VLLM::EngineCore, orphan of run 'qwen3')`."""
        who = f"pid {self.pid}" if self.pid is not None else "a process of another pid namespace"
        more = [self.command] if self.command else []
        if self.run:
            more.append(f"{'orphan of' if self.kind == 'orphan' else 'of'} run '{self.run}'")
        return f"{who} ({', '.join(more)})" if more else who


class MigDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One MIG slice of a GPU: its UUID (`MIG-...`), profile (`3g.40gb`), memory, and who holds it."""

    index: int
    uuid: str
    profile: str | None = None
    memory_bytes: int = 0
    holders: tuple[Holder, ...] = ()


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU by NVML.

    `pci`: address as sysfs spells it (`0000:18:00.0`); `pci_path`: components of its real path below /sys/devices, the
    root complex first. `nvlinks`: links to each peer's NVML index; `nvswitch_links`: links that end in an NVSwitch,
    behind which all GPUs of a node meet. `nic_distances`: by NIC name, where a matrix said so instead of PCI paths.
    `lost`: why NVML can't use it (fell off the bus); None: it works.
    """

    index: int
    uuid: str
    name: str
    memory_bytes: int
    pci: str = ""
    pci_path: tuple[str, ...] = ()
    numa: int | None = None
    cores: tuple[int, ...] = ()
    compute_capability: str | None = None
    nvlinks: dict[int, int] = {}
    nvswitch_links: int = 0
    nic_distances: dict[str, Distance] | None = None
    gpu_distances: dict[int, Distance] | None = None
    mig_enabled: bool = False
    mig: tuple[MigDevice, ...] = ()
    holders: tuple[Holder, ...] = ()
    lost: str | None = None


class Gid(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a port's GID table. `type`: `IB/RoCE v1` or `RoCE v2`, None where the kernel does not say."""

    index: int
    gid: str
    type: str | None = None
    netdev: str | None = None


class NicPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port: `state` as sysfs says it (`ACTIVE`), `phys_state` (`LinkUp`), rate in gigabits/s, link layer, GIDs."""

    number: int
    state: str | None = None
    phys_state: str | None = None
    rate_gigabits_per_s: float | None = None
    link_layer: Literal["InfiniBand", "Ethernet"] | None = None
    gids: tuple[Gid, ...] = ()

    @property
    def active(self) -> bool:
        """Whether it can carry traffic."""
        return self.state == "ACTIVE" and self.phys_state == "LinkUp"


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """One RDMA device (`mlx5_0`).

    `virtual`: an SR-IOV virtual function; `bond`: the bond its netdevs are slaves of, or it is itself;
    `use_reason`: why it has that `use`; `pci_id`: vendor and device (`15b3:1021`).
    """

    name: str
    pci: str = ""
    pci_path: tuple[str, ...] = ()
    numa: int | None = None
    ports: tuple[NicPort, ...] = ()
    netdevs: tuple[str, ...] = ()
    virtual: bool = False
    bond: str | None = None
    pci_id: str | None = None
    use: NicUse = "kv"
    use_reason: str | None = None

    @property
    def active_ports(self) -> tuple[int, ...]:
        """Numbers of the ports that can carry traffic."""
        return tuple(port.number for port in self.ports if port.active)

    @property
    def rate_gigabits_per_s(self) -> float | None:
        """Rate of the fastest active port; None where there is none or it is not known."""
        rates = [port.rate_gigabits_per_s for port in self.ports if port.active and port.rate_gigabits_per_s]
        return max(rates, default=None)


class NumaNode(msgspec.Struct, frozen=True, kw_only=True):
    """One NUMA node: its cores (those this process may use) and memory; `memory_bytes` 0: none, or not known."""

    index: int
    cores: tuple[int, ...] = ()
    memory_bytes: int = 0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of this process. None: not looked up, or unlimited where the name ends so.

    `cpu_quota`: cores' worth of time that the cgroup allows; `memory_bytes`: the cgroup's limit.
    """

    memlock_bytes: int | None = None
    memlock_unlimited: bool = False
    nofile: int | None = None
    shm_bytes: int | None = None
    shm_free_bytes: int | None = None
    cpu_quota: float | None = None
    memory_bytes: int | None = None
    container: str | None = None


class Cma(msgspec.Struct, frozen=True, kw_only=True):
    """Whether cross-memory attach works here, and the reason: it carries KV between host-memory engines on one node."""

    allowed: bool
    reason: str


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """A machine. `cores`: those this process may use; `driver`, `cuda`: as NVML reports them, None without a GPU.

    `source`: where this was learnt; a matrix knows neither memory nor models, and says so by zeros and empty names.
    """

    schema: int = 1
    hostname: str = ""
    source: Literal["discovered", "snapshot", "nvidia-smi topo -m", "nccl xml"] = "discovered"
    gpus: tuple[Gpu, ...] = ()
    nics: tuple[Nic, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    cores: tuple[int, ...] = ()
    memory_bytes: int = 0
    limits: Limits = Limits()
    cma: Cma = Cma(allowed=False, reason="not looked up")
    driver: str | None = None
    cuda: str | None = None
    notes: tuple[str, ...] = ()

    def has_gpu(self) -> bool:
        """Whether engines here keep their KV in GPU memory."""
        return bool(self.gpus)

    def has_rdma(self) -> bool:
        """Whether any RDMA port that may carry KV is up."""
        return any(nic.active_ports and nic.use == "kv" for nic in self.nics)


def nvlink_width(a: Gpu, b: Gpu) -> int:
    """NVLinks between two GPUs of one node; 0: not peers. Where the two ends differ, the narrower one counts."""
    direct = min(a.nvlinks.get(b.index, 0), b.nvlinks.get(a.index, 0))
    return direct or min(a.nvswitch_links, b.nvswitch_links)


def cpu_list(cores: tuple[int, ...]) -> str:
    """Cores as a Linux cpu list: (0, 1, 2, 3, 8) -> "0-3,8"."""
    spans: list[list[int]] = []
    for core in sorted(cores):
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The cores of a Linux cpu list; ValueError if it is not one."""
    cores: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        cores.update(range(int(first), int(last if dash else first) + 1))
    return tuple(sorted(cores))
