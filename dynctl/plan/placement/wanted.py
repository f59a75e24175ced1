"""What is to be placed: every worker with its role's specification, its pin and its part of a GPU. Pure."""

from __future__ import annotations

from fractions import Fraction

import msgspec

from dynctl.engines.base import flag_name
from dynctl.engines.spec import Role
from dynctl.topology.node_spec import nodes_of, span_of
from dynctl.topology.schema import Pin, RoleSpec, Topology

WORKER_ROLES: tuple[Role, ...] = ("prefill", "decode", "worker")
MEMORY_FLAG = "gpu-memory-utilization"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One worker. `share`: the part of one GPU that it takes; None: it has its GPUs to itself."""

    role: Role
    index: int
    gpus: int
    pin: Pin
    where: str
    share: Fraction | None = None
    node: str = "local"
    span: int = 1
    rank: int = 0

    @property
    def leader(self) -> str:
        """`prefill-0`."""
        return f"{self.role}-{self.index}"

    @property
    def id(self) -> str:
        """`prefill-0`; `prefill-0.1` for the second part of one that spans nodes."""
        return f"{self.leader}.{self.rank}" if self.rank else self.leader


def roles(topology: Topology) -> list[tuple[Role, RoleSpec]]:
    """The worker roles that the topology has, in the order they are placed."""
    found = [(role, getattr(topology.roles, role)) for role in WORKER_ROLES]
    return [(role, spec) for role, spec in found if spec is not None]


def workers(topology: Topology) -> list[Wanted]:
    """Every worker, or every part of one that spans nodes, in plan order."""
    return [
        Wanted(
            role=role,
            index=index,
            gpus=spec.gpus_per_worker // span_of(spec),
            pin=spec.pin[index] if spec.pin and index < len(spec.pin) else Pin(),
            where=topology.where("roles", role, "pin", index),
            share=_share(spec),
            node=node,
            span=span_of(spec),
            rank=rank,
        )
        for role, spec in roles(topology)
        for index in range(spec.workers)
        for rank, node in enumerate(nodes_of(spec, index, topology.nodes) or ("local",))
    ]


def _share(spec: RoleSpec) -> Fraction | None:
    """`share`, or what the engine is told to take instead of it."""
    if spec.share is None:
        return None
    said = next((value for key, value in spec.args.items() if flag_name(key) == MEMORY_FLAG), spec.share)
    try:
        return Fraction(str(said))
    except (ValueError, ZeroDivisionError):
        return Fraction(str(spec.share))
