"""The machines that a plan is made over: this node, the others, and what is known of each. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import msgspec

from dynctl.errors import HostError
from dynctl.hardware.values import Hardware
from dynctl.plan.facts import Facts
from dynctl.plan.ports import PortAllocator, range_of
from dynctl.plan.values import PlannedNode
from dynctl.topology.schema import Topology

LOCAL = "local"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One machine. `hardware`: None where nothing is known of it, so that seats there stay open."""

    name: str
    address: str
    hardware: Hardware | None
    ports: PortAllocator
    control_port: int | None = None

    def node(self) -> PlannedNode:
        """As the other nodes must know it."""
        return PlannedNode(name=self.name, address=self.address, control_port=self.control_port or 0)


def machines(topology: Topology, facts: Facts) -> dict[str, Machine]:
    """Every machine of the topology by name; without `nodes` this one alone, called `local`."""
    if not topology.nodes:
        ports = PortAllocator.of_run(topology.name, {**facts.taken_ports, topology.frontend.port: "the frontend"})
        return {LOCAL: Machine(name=LOCAL, address="127.0.0.1", hardware=facts.hardware, ports=ports)}
    found = {}
    for name, node in topology.nodes.items():
        # the same on every node: who else holds a port there is not looked at, and a taken one is an error
        ports = PortAllocator(
            range_of(topology.name, node.ports),
            {topology.frontend.port: "the frontend"} if name == topology.frontend_node else {},
            where=topology.where("nodes", name, "ports"),
        )
        found[name] = Machine(
            name=name,
            address=node.address,
            hardware=facts.hardware if name == facts.node else facts.elsewhere.get(name),
            control_port=ports.take(),
            ports=ports,
        )
    return found


def agreed(topology: Topology, facts: Facts, dynctl: str) -> dict[str, str]:
    """What all nodes must have the same, by name; a snapshot or an interpreter's path is each node's own matter."""
    document = json.loads(topology.model_dump_json(by_alias=True))
    for node in document["nodes"].values():
        node.pop("hardware", None)
        node.pop("ssh", None)
    for key in ("python", "secret_file"):
        document.pop(key, None)
    parts = {
        "file": hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12],
        "dynctl": dynctl,
        "model": facts.model.model,
    }
    versions = {name: getattr(facts.engine, name) for name in ("vllm", "nixl")}
    return parts | {name: version for name, version in versions.items() if version}


def digest(parts: Mapping[str, str]) -> str:
    """One value for all parts, in hexadecimal."""
    return hashlib.sha256(json.dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def refuse_taken(machine: Machine, taken: Mapping[int, str], planned: Mapping[int, str]) -> None:
    """HostError for the first planned port of this node that somebody else holds. `planned`: by what."""
    for port, what in {
        **({machine.control_port: "its control port"} if machine.control_port else {}),
        **planned,
    }.items():
        if holder := taken.get(port):
            raise HostError(
                f"port {port} of node {machine.name} is in use",
                where=what,
                why=(f"held by {holder}", "ports of several nodes follow from the file: none is moved silently"),
                fix=f"end it, or give the node another range: `nodes.{machine.name}.ports`",
            )
