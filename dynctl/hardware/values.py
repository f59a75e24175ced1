"""What a machine has, as values: GPUs, RDMA devices, cores, memory, and whether CMA is possible."""

from __future__ import annotations

import msgspec


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU by NVML. `nvlink_peers`: NVML indexes reachable over NVLink; `holders`: processes that use it."""

    index: int
    uuid: str
    name: str
    memory_bytes: int
    pci: str
    numa: int | None = None
    compute_capability: str | None = None
    nvlink_peers: tuple[int, ...] = ()
    holders: tuple[str, ...] = ()


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """One RDMA device (`mlx5_0`). `active_ports` are those in state ACTIVE with physical state LinkUp."""

    name: str
    numa: int | None = None
    active_ports: tuple[int, ...] = ()


class Cma(msgspec.Struct, frozen=True, kw_only=True):
    """Whether cross-memory attach works here, and the reason: it carries KV between host-memory engines on one node."""

    allowed: bool
    reason: str


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """A machine. `cores`: those this process may use; `driver`, `cuda`: as NVML reports them, None without a GPU."""

    schema: int = 1
    hostname: str = ""
    gpus: tuple[Gpu, ...] = ()
    nics: tuple[Nic, ...] = ()
    cores: tuple[int, ...] = ()
    memory_bytes: int = 0
    cma: Cma = Cma(allowed=False, reason="not looked up")
    driver: str | None = None
    cuda: str | None = None

    def has_gpu(self) -> bool:
        """Whether engines here keep their KV in GPU memory."""
        return bool(self.gpus)

    def has_rdma(self) -> bool:
        """Whether any RDMA port is up."""
        return any(nic.active_ports for nic in self.nics)


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
