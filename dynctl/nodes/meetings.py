"""Which nodes of a plan meet for `check-rdma`, in which order, and where. Pure: every node comes to the same answer."""

from __future__ import annotations

import msgspec

from dynctl.errors import UsageError
from dynctl.plan.ports import range_of
from dynctl.plan.values import Plan, pairs_to_prove
from dynctl.topology.schema import Topology


class Appointment(msgspec.Struct, frozen=True, kw_only=True):
    """Two nodes that prove the path between them: the earlier in the file listens, the later dials it there."""

    listener: str
    dialer: str
    host: str
    port: int

    def other(self, node: str) -> str:
        """The one that `node` meets."""
        return self.dialer if node == self.listener else self.listener


def appointments(topology: Topology, plan: Plan) -> tuple[Appointment, ...]:
    """Every two nodes with a prefill-decode pair across them, in the one order that all nodes keep.

    Each node keeps its own in this order, so that no two wait for each other in a circle. Each has a port of its own,
    counted from the end of the listener's range: a run takes its ports from the start, and may go on meanwhile.
    Raises UsageError where a range is too short for that.
    """
    order = list(topology.nodes)
    parts: dict[str, set[str]] = {}
    for process in plan.processes:  # a worker on several nodes has a part of its KV on each
        parts.setdefault(process.leader or process.id, set()).add(process.node)
    met = {
        (order.index(a), order.index(b))
        for pair in pairs_to_prove(plan.transport.pairs)
        for a in parts[pair.from_]
        for b in parts[pair.to]
        if a != b
    }
    return tuple(_appointment(topology, order, *sorted(two)) for two in sorted({(min(p), max(p)) for p in met}))


def _appointment(topology: Topology, order: list[str], earlier: int, later: int) -> Appointment:
    name = order[earlier]
    node = topology.nodes[name]
    ports = range_of(topology.name, node.ports)
    port = ports.last - (later - earlier - 1)
    if port <= ports.first:
        raise UsageError(
            f"node {name} has too few ports for a meeting with each later node",
            where=topology.where("nodes", name, "ports"),
            fix=f"give it {len(order)} ports or more",
        )
    return Appointment(listener=name, dialer=order[later], host=node.address, port=port)
