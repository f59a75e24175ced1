"""Looks once more, just before spawning, whether the planned ports can be bound: plans age, a taken port hangs vLLM."""

from __future__ import annotations

from dynctl.engines.spec import SERVICES
from dynctl.errors import HostError
from dynctl.plan.values import Plan
from dynctl.preflight.ports import holder


def refuse_taken_ports(plan: Plan) -> None:
    """HostError naming the first planned port that somebody else holds now."""
    addresses = {node.name: node.address for node in plan.nodes}
    for process in plan.own():
        # the frontend listens where its own section says, the workers of several nodes at their node's address
        address = "127.0.0.1" if process.role in SERVICES else addresses.get(process.node, "127.0.0.1")
        for name, port in process.ports.items():
            held = holder(port, address)
            if held:
                raise HostError(
                    f"port {port} was taken after the plan was made",
                    where=f"process {process.id}, {name}",
                    why=f"held by {held}",
                    fix="run the command again: free ports are looked up anew",
                )
