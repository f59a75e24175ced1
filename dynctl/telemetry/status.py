"""The status document: what `status --json` prints, and what the live view draws."""

from __future__ import annotations

from typing import Literal

import msgspec

from dynctl.engines.spec import ProcessSpec

RunState = Literal["starting", "ready", "degraded", "failed", "stopping", "stopped", "unsupervised"]
ProcessState = Literal[
    "pending",
    "starting",
    "loading",
    "ready",
    "unhealthy",
    "draining",
    "stopping",
    "stopped",
    "crashed",
    "backing off",
    "failed",
]
NodeState = Literal["missing", "starting", "ready", "degraded", "lost", "failed", "stopping", "stopped", "unsupervised"]
"""missing: not met yet; lost: met, and silent for longer than 5 s; else as the node says of itself."""
Verdict = Literal["nvlink", "rdma", "shm", "tcp", "mixed", "unknown"]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One line that supports a verdict, and the file it was read from."""

    kind: Literal["used", "planned", "lane", "counter"]
    source: str
    line: str


class PairStatus(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A proven pair: bytes and rate of its proof transfer, its verdict and the evidence. None: not measured."""

    from_: str
    to: str
    verdict: Verdict = "unknown"
    bytes: int | None = None
    gigabytes_per_s: float | None = None
    evidence: tuple[Evidence, ...] = ()


class TransportStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The run's KV path: its verdict is that of its worst pair."""

    required: str
    verdict: Verdict = "unknown"
    gigabytes_per_s: float | None = None
    evidence: tuple[Evidence, ...] = ()
    pairs: tuple[PairStatus, ...] = ()


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process and all its threads may run and allocate, read from /proc when it started and when healthy.

    `cpus`: a Linux cpu list. `memory`: its memory policy as the kernel words it (`prefer:0`); None: not readable.
    `ok`: nothing differs from the plan; else `note` says what does.
    """

    cpus: str | None = None
    memory: str | None = None
    ok: bool = True
    note: str | None = None


class ProcessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One process as last seen. `since` is wall time in seconds of its present state.

    `cpus`, `memory_nodes` are as planned, `bound` as found; None where nothing was planned, or not looked at yet.
    `leader`: the worker that it is a part of, where that spans several nodes.
    """

    id: str
    role: str
    node: str = "local"
    leader: str | None = None
    pid: int | None = None
    state: ProcessState = "pending"
    phase: str | None = None
    phase_since: float | None = None
    gpus: tuple[int, ...] = ()
    gpu_uuids: tuple[str, ...] = ()
    nics: tuple[str, ...] = ()
    numa: int | None = None
    cpus: str | None = None
    memory_nodes: tuple[int, ...] = ()
    bound: Bound | None = None
    ports: dict[str, int] = {}
    restarts: int = 0
    since: float | None = None
    rss_bytes: int | None = None

    @classmethod
    def planned(cls, spec: ProcessSpec) -> ProcessStatus:
        """The row of a process of which nothing is known but its plan."""
        return cls(
            id=spec.id,
            role=spec.role,
            node=spec.node,
            leader=spec.leader,
            gpus=spec.gpus,
            gpu_uuids=spec.gpu_uuids,
            nics=spec.nics,
            numa=spec.numa,
            cpus=spec.cpus,
            memory_nodes=spec.memory_nodes,
            ports=spec.ports,
        )


class TtftStatus(msgspec.Struct, frozen=True, kw_only=True):
    """TTFT in milliseconds over the last `window_s` seconds; None where no streamed request ended in it.

    `split` holds medians by the frontend's clock: queue, prefill, handover; of Dynamo's frontend prefill_wait and
    prefill_to_first_token, and its kv_transfer_estimate, which is within the second. `window` holds means from the
    engines' metrics: prefill_queue, prefill_compute, transfer, first_decode, unattributed (the only subtraction),
    gigabytes_per_s.
    """

    p50: float | None = None
    p99: float | None = None
    window_s: float = 60.0
    requests: int = 0
    split: dict[str, float | None] = {}
    window: dict[str, float | None] = {}


class FrontendStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The frontend: its URL, what it says of its health and why, its load."""

    url: str | None = None
    health: Literal["ok", "degraded", "down", "unknown"] = "unknown"
    reason: str | None = None
    requests_per_s: float | None = None
    in_flight: int | None = None
    requests_total: int | None = None
    errors_total: int | None = None


class SupervisorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor's pid; None when the run has none."""

    pid: int | None = None


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the run as seen from `here`. `heard`: what it last said of itself.

    `age_s`: seconds since it was last heard, by the monotonic clock of the node that tells; None: never.
    """

    name: str
    address: str
    state: NodeState = "missing"
    age_s: float | None = None
    reason: str | None = None
    heard: RunState | None = None
    here: bool = False


class VerifyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of token verification: prompts compared, tokens compared, and the first divergence if any."""

    state: Literal["off", "pending", "passed", "warned", "failed"] = "off"
    prompts: int = 0
    tokens: int = 0
    detail: str | None = None


class RunStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A run, whole."""

    schema: int = 1
    name: str
    state: RunState
    reason: str | None = None
    started_at: float | None = None
    served_name: str | None = None
    supervisor: SupervisorStatus = SupervisorStatus()
    frontend: FrontendStatus = FrontendStatus()
    processes: tuple[ProcessStatus, ...] = ()
    transport: TransportStatus
    ttft_ms: TtftStatus = TtftStatus()
    verify: VerifyStatus = VerifyStatus()
    slo_ms: dict[str, float | None] = {}
    warnings: tuple[str, ...] = ()
    nodes: tuple[NodeStatus, ...] = ()
