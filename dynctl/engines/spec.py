"""What an engine adapter is given and what it returns: seats in, process specifications out, all of it data."""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["prefill", "decode", "worker", "frontend", "control"]
"""control: what the others find each other by, such as etcd."""
SERVICES: frozenset[Role] = frozenset({"frontend", "control"})
"""Roles of processes that are no workers."""
EPOCH = "{epoch}"
"""In the argv of a worker on several nodes: replaced by what its parts have the same in one start and in no other."""
SOCKETS = "{sockets}"
"""In an argv: replaced by the run's directory for unix sockets."""


def format_address(host: str, port: int) -> str:
    """HOST:PORT as a URL has it: IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Rail(msgspec.Struct, frozen=True, kw_only=True):
    """A NIC port that carries one GPU's KV; PCI addresses as sysfs spells them, empty where not known.

    `gpu`: NVML index, None for a worker whose KV is in host memory.
    """

    gpu: int | None = None
    gpu_pci: str = ""
    nic: str
    nic_pci: str = ""
    port: int


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """Where one worker sits: GPUs (NVML index and UUID), NICs, NUMA node, cores (a Linux cpu list) and ports.

    `gpu_uuids`: what CUDA_VISIBLE_DEVICES takes, a MIG slice's UUID where it is one; `rails`: which NIC port carries
    which GPU's KV. `memory_nodes`: NUMA nodes its memory should come from; empty: wherever the kernel likes.
    `reasons`: why it sits there, one choice each, for `plan --explain`. A worker that spans `span` nodes has a seat on
    each: `rank` 0 leads, the others name it as `leader`; `master`: ADDRESS:PORT where they meet.
    """

    id: str
    role: Role
    index: int
    node: str = "local"
    address: str = "127.0.0.1"
    span: int = 1
    rank: int = 0
    leader: str | None = None
    master: str | None = None
    gpus: tuple[int, ...] = ()
    gpu_uuids: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    rails: tuple[Rail, ...] = ()
    numa: int | None = None
    cpus: str | None = None
    memory_nodes: tuple[int, ...] = ()
    ports: dict[str, int] = {}
    reasons: tuple[str, ...] = ()


class LogPhase(msgspec.Struct, frozen=True):
    """A regular expression on the engine's log, and the start-up phase that begins when it first matches."""

    pattern: str
    phase: str


class LogCause(msgspec.Struct, frozen=True):
    """A regular expression that explains a death, in words, and what to do about it."""

    pattern: str
    cause: str
    fix: str | None = None


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A request for one token, which proves that the engine behind a server still works.

    `body`: JSON. `tokens`: the counter in its metrics that rises with every token, None where there is none.
    """

    path: str
    body: str
    tokens: str | None = None


class Probes(msgspec.Struct, frozen=True, kw_only=True):
    """How a process is found alive and ready: a base URL and paths on it; None where the process has no such probe."""

    url: str | None = None
    health: str | None = "/health"
    models: str | None = "/v1/models"
    metrics: str | None = "/metrics"
    canary: Canary | None = None


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """Restart rule: at most `max` times, waiting `backoff_s` doubled each time up to `cap_s`.

    Healthy for `cap_s`, it has all its restarts again. `after_restart_of`: a role; whenever a process of it was
    restarted, the engine needs this one to be restarted too.
    """

    max: int = 3
    backoff_s: float = 1.0
    cap_s: float = 60.0
    after_restart_of: Role | None = None


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a run, complete: what to execute, where it sits, how to watch it and how to stop it.

    `env` holds only what dynctl sets; the rest is inherited from whoever started the run. `ucx` says that the process
    writes UCX's protocol choices among its own log lines. `vital`: beginnings of the titles of child processes without
    which it can't serve, whatever its server says. `sockets_variable`: tells it a directory for unix sockets of its
    own. `leader`: the process that this one is a part of, where a worker
    spans several nodes: it serves through that one, and has no probes of its own. `after`: those that load before it,
    one at a time; `needs`: those that have to serve before it is started.
    """

    id: str
    role: Role
    node: str = "local"
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    gpus: tuple[int, ...] = ()
    gpu_uuids: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    numa: int | None = None
    cpus: str | None = None
    memory_nodes: tuple[int, ...] = ()
    ports: dict[str, int] = {}
    reasons: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    leader: str | None = None
    probes: Probes = Probes()
    log_phases: tuple[LogPhase, ...] = ()
    log_causes: tuple[LogCause, ...] = ()
    restart: Restart = Restart()
    stop_grace_s: float = 20.0
    ucx: bool = False
    vital: tuple[str, ...] = ()
    sockets_variable: str | None = None
