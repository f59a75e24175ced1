"""The `nodes` section: the machines of a run that spans several, and which of them each worker sits on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from dynctl.topology.base import Section, Text, fits_as_name, wrong
from dynctl.topology.roles import RoleSpec

MOST_NODES = 1024
_RANGE = re.compile(r"([0-9]{1,5})\s*-\s*([0-9]{1,5})", re.ASCII)


def _check_address(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise wrong(
            "must be an IP address",
            why="every node must come to the same plan, and names resolve differently on different machines",
            fix=f"`getent hosts {value}` shows it" if re.fullmatch(r"[\w.-]{1,253}", value, re.ASCII) else None,
        ) from None
    if address.is_unspecified or address.is_multicast:
        raise wrong("is not the address of one machine", fix="write the address that the other nodes reach it by")
    return str(address)


def _check_range(value: str) -> str:
    found = _RANGE.fullmatch(value)
    if not found:
        raise wrong("must be two ports with `-` between them", fix="for example `ports: 20000-20999`")
    first, last = int(found[1]), int(found[2])
    if not 1024 <= first <= last <= 65535:
        raise wrong("must lie within 1024-65535, the smaller port first", fix="for example `ports: 20000-20999`")
    return f"{first}-{last}"


Address = Annotated[str, AfterValidator(_check_address)]
PortRange = Annotated[
    str,
    AfterValidator(_check_range),
    WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,5}-[0-9]{1,5}$"}),
]


class NodeSpec(Section):
    """One machine."""

    address: Address = Field(
        description="IP address that the other nodes reach this one by; its workers listen there.",
        examples=["10.0.0.1"],
    )
    ports: PortRange | None = Field(
        default=None,
        description="Ports that the run may use there; by default a range that follows from its name.",
        examples=["20000-20999"],
    )
    hardware: Text | None = Field(
        default=None,
        description="File with the machine's snapshot (`dynctl hardware --json`), to plan it from elsewhere.",
        examples=["./a.json"],
    )
    ssh: Text | None = Field(
        default=None, description="Destination for `up --ssh`; by default the address.", examples=["admin@node-a"]
    )


def check_nodes(nodes: Mapping[str, NodeSpec]) -> None:
    """Raises what is wrong with the section by itself."""
    if len(nodes) > MOST_NODES:
        raise wrong(f"names {len(nodes)} machines, more than {MOST_NODES}", at=("nodes",))
    seen: dict[str, str] = {}
    for name, node in nodes.items():
        if not fits_as_name(name):
            raise wrong("is not a node's name", why="names are a-z, 0-9 and `-`, at most 40", at=("nodes", name))
        if node.address in seen:
            raise wrong(
                f"is {node.address}, which is the address of `{seen[node.address]}` too",
                why="a node is told from the others by its address",
                fix="write each machine once",
                at=("nodes", name, "address"),
            )
        seen[node.address] = name


def check_on(nodes: Mapping[str, NodeSpec], named: tuple[str, ...] | None, at: tuple[str | int, ...]) -> None:
    """Raises what is wrong with an `on`, where it is written."""
    if named is None:
        return
    if not nodes:
        raise wrong("is written, but the file has no `nodes`", fix="add `nodes`, or leave it out", at=at)
    for name in named:
        if name not in nodes:
            raise wrong(f"names `{name}`, which is not among the nodes: {', '.join(nodes)}", at=at)
    if not named or len(set(named)) < len(named):
        raise wrong("must name at least one node, each once", at=at)


def check_span(nodes: Mapping[str, NodeSpec], role: str, spec: RoleSpec) -> None:
    """Raises where a role's workers can't be dealt out to its nodes."""
    at: tuple[str | int, ...] = ("roles", role, "on")
    if spec.on is None:
        if len(nodes) > 1:
            raise wrong(
                "is missing",
                why=f"the file has {len(nodes)} nodes, and this role's workers could sit on any of them",
                fix=f"for example `on: [{next(iter(nodes))}]`",
                at=at,
            )
        return
    span = span_of(spec)
    if spec.workers * span < len(spec.on):
        raise wrong(
            f"names {len(spec.on)} nodes for {spec.workers} workers",
            why="each node has at least one worker, or each worker takes the same number of nodes",
            fix="name as many nodes as there are workers, or a multiple of it",
            at=at,
        )
    if span == 1:
        return
    if (spec.tp * spec.pp) % span or spec.dp > 1:
        raise wrong(
            f"spreads each worker over {span} nodes, but its {spec.gpus_per_worker} GPUs can't be divided so",
            why="each node gets the same part of tp*pp; data-parallel ranks stay on one node",
            fix=f"make tp*pp a multiple of {span}, or raise `workers`",
            at=at,
        )
    if spec.pin or spec.share is not None:
        raise wrong(
            f"spreads each worker over {span} nodes, which `{'pin' if spec.pin else 'share'}` can't be used with",
            fix=f"leave `{'pin' if spec.pin else 'share'}` out",
            at=at,
        )


def span_of(spec: RoleSpec) -> int:
    """How many nodes one worker of the role takes: 1, or more where `on` names more nodes than there are workers."""
    return max(1, len(spec.on or ()) // spec.workers)


def nodes_of(spec: RoleSpec, index: int, nodes: Mapping[str, Any]) -> tuple[str, ...]:
    """The nodes of the role's worker `index`, its leader's first; empty where the file has no nodes."""
    on, span = spec.on or tuple(nodes)[:1], span_of(spec)
    if not on:
        return ()
    if span == 1:
        return (on[index % len(on)],)
    return on[index * span : (index + 1) * span]
