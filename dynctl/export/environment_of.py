"""Where in a topology the environment of a graph's components belongs."""

from __future__ import annotations

from typing import Any

from dynctl.export.reading import Part, value_of
from dynctl.export.to_graph import is_secret

_FABRIC = ("UCX_", "NIXL_")
_DYNAMO = "DYN_"


def share_out(
    parts: dict[str, Part], pods: dict[str, Any], k8s: dict[str, Any], transport: dict[str, Any], roles: dict[str, Any]
) -> None:
    """Adds `env` to the pods' settings, the roles and the transport.

    What the frontend has too, and what steers Dynamo, is the cluster's (`x-k8s`); the fabric's, where all workers have
    it alike, is the transport's; the rest is the role's own.
    """
    values = {role: _values(part) for role, part in parts.items()}
    everywhere = _alike(list(values.values()))
    workers = [found for role, found in values.items() if role != "frontend"]
    split = "prefill" in roles
    fabric = {name: value for name, value in _alike(workers).items() if split and name.startswith(_FABRIC)}
    if fabric:
        transport["env"] = fabric
    for role, found in values.items():
        mine = {name: value for name, value in found.items() if role == "frontend" or name not in fabric}
        cluster = {
            name: value
            for name, value in mine.items()
            if role == "frontend" or name.startswith(_DYNAMO) or name in everywhere
        }
        pods[role]["env"] = cluster
        if role != "frontend":
            roles[role]["env"] = {name: value for name, value in mine.items() if name not in cluster}


def _alike(found: list[dict[str, str]]) -> dict[str, str]:
    first, *others = found
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def _values(part: Part) -> dict[str, str]:
    found = {}
    for name, variable in part.env.items():
        value = value_of(variable)
        if is_secret(name, value):
            variable.leave("a secret: set it in the environment of `dynctl up`, or in a Secret (`x-k8s.secret`)")
            continue
        variable.done()
        found[name] = value
    return found
