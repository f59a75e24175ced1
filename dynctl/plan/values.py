"""The Plan: everything a run will do, as data. It is what `plan --json` prints and what the supervisor executes."""

from __future__ import annotations

from typing import Literal

import msgspec

from dynctl.engines.spec import SERVICES, ProcessSpec

TransportClass = Literal["nvlink", "rdma", "shm", "tcp"]
"""Classes of KV path, fastest first."""

CLASS_ORDER: tuple[TransportClass, ...] = ("nvlink", "rdma", "shm", "tcp")


ALL_PAIRS = 64
"""Up to here every pair is proven; above it a covering set."""


class PlannedPair(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """A prefill-decode pair: the best class of path that this hardware offers it, the floor it must meet, and why.

    `across`: its ends are on different nodes. `assumed`: the hardware of an end is not known here and was taken to be
    as this node's, so that path and floor are judged again when the nodes meet.
    """

    from_: str
    to: str
    path: TransportClass
    floor: TransportClass
    reason: str
    across: bool = False
    assumed: bool = False


def mover(pair: PlannedPair, direction: str) -> str:
    """The process that moves a pair's KV bytes: decode READs them (pull), or prefill WRITEs them (push)."""
    return pair.to if direction == "pull" else pair.from_


def pairs_to_prove(pairs: tuple[PlannedPair, ...]) -> tuple[PlannedPair, ...]:
    """All pairs, or above 64 a set in which every prefill and every decode occurs."""
    if len(pairs) <= ALL_PAIRS:
        return pairs
    prefills = list(dict.fromkeys(pair.from_ for pair in pairs))
    decodes = list(dict.fromkeys(pair.to for pair in pairs))
    longest = max(len(prefills), len(decodes))
    chosen = {(prefills[at % len(prefills)], decodes[at % len(decodes)]) for at in range(longest)}
    return tuple(pair for pair in pairs if (pair.from_, pair.to) in chosen)


class PlannedTransport(msgspec.Struct, frozen=True, kw_only=True):
    """The KV path as planned: the `required` word of the topology, the direction, and every pair."""

    required: str
    direction: Literal["pull", "push"] = "pull"
    backend: str = "ucx"
    pairs: tuple[PlannedPair, ...] = ()


class KvShape(msgspec.Struct, frozen=True, kw_only=True):
    """What one token's KV weighs, where the model's configuration tells: bytes per token over all layers and ranks.

    `block_tokens` is the engine's block size: KV moves in whole blocks. Zero bytes: the layout is not a known one, and
    only the fact that bytes moved can be checked. `counted`: the engine counts the bytes that it hands over.
    """

    bytes_per_token: int = 0
    block_tokens: int = 0
    counted: bool = True

    def transfer_bytes(self, tokens: int) -> int:
        """Bytes that a hand-over of `tokens` prompt tokens moves: whole blocks."""
        if not (self.bytes_per_token and self.block_tokens):
            return 0
        blocks = -(-tokens // self.block_tokens)
        return blocks * self.block_tokens * self.bytes_per_token


class ReadyRules(msgspec.Struct, frozen=True, kw_only=True):
    """Deadlines of start-up, in seconds."""

    timeout_s: float = 1800.0
    stall_s: float = 300.0


class HealthRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a ready process is watched, in seconds: the period of its canary, and how long it may stay unhealthy."""

    canary_s: float = 5.0
    stall_s: float = 60.0


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Service-level objectives in milliseconds, where the topology names them."""

    ttft_ms: float | None = None
    itl_ms: float | None = None


class PlannedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of a run that spans several. Its supervisor speaks with the others at `control_port`."""

    name: str
    address: str
    control_port: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `schema` 1 grows only by optional keys. `preflight`: what was found before it was launched.

    `node`: the one of `nodes` that this plan is executed on; without nodes the machine itself. `digest`: over what all
    nodes must agree on, whose parts are named in `agreed`. `rdma`: this node has an ACTIVE RDMA port for KV.
    `frontend_cert`: file of the certificate that an https frontend shows; `frontend_keys`: of its keys.
    `router`: the kind of frontend; `simulated`: workers move no KV.
    """

    schema: int = 1
    name: str
    served_name: str
    model: str
    engine: str
    run_dir: str
    frontend_url: str
    frontend_cert: str | None = None
    frontend_keys: str | None = None
    processes: tuple[ProcessSpec, ...]
    transport: PlannedTransport
    kv: KvShape = KvShape()
    ready: ReadyRules = ReadyRules()
    health: HealthRules = HealthRules()
    slo: Slo = Slo()
    verify: bool = False
    exact: bool = False
    warnings: tuple[str, ...] = ()
    preflight: str | None = None
    node: str = "local"
    nodes: tuple[PlannedNode, ...] = ()
    digest: str = ""
    rdma: bool = False
    agreed: dict[str, str] = {}
    router: str = "builtin"
    simulated: bool = False

    def own(self) -> tuple[ProcessSpec, ...]:
        """The processes that run on this node, in plan order."""
        return tuple(p for p in self.processes if not self.nodes or p.node == self.node)

    def elsewhere(self) -> tuple[ProcessSpec, ...]:
        """Those of the other nodes."""
        return tuple(p for p in self.processes if self.nodes and p.node != self.node)

    def workers(self) -> tuple[ProcessSpec, ...]:
        """The engine processes that serve, in plan order; of a worker on several nodes its leader."""
        return tuple(p for p in self.processes if p.role not in SERVICES and not p.leader)

    def parts(self, worker: str) -> tuple[ProcessSpec, ...]:
        """The further parts of a worker on several nodes, its leader's left out."""
        return tuple(p for p in self.processes if p.leader == worker)

    def places(self, worker: str) -> set[str]:
        """The nodes that a worker has parts on."""
        return {self.process(worker).node, *(part.node for part in self.parts(worker))}

    def process(self, process_id: str) -> ProcessSpec:
        """The process of that id; KeyError if the plan has none."""
        for process in self.processes:
            if process.id == process_id:
                return process
        raise KeyError(process_id)
