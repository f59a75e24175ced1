"""`nvidia.com/v1alpha1`: services in a mapping, pods in words of the operator's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynctl.export.cursor import Cursor
from dynctl.export.graph import GROUP, KIND, Component, Graph
from dynctl.export.pods import container, variables, without_empty
from dynctl.export.reading import Part, environment, nodes_of, rdma_of, read_container

API_VERSION = f"{GROUP}/v1alpha1"


def write(graph: Graph) -> dict[str, Any]:
    """The object."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": without_empty({"name": graph.name, "namespace": graph.namespace}),
        "spec": without_empty(
            {
                "backendFramework": graph.framework,
                "pvcs": [{"name": claim, "create": False} for claim in graph.claims()],
                "services": {one.name: _service(one) for one in graph.components},
            }
        ),
    }


def _service(component: Component) -> dict[str, Any]:
    split = component.kind in ("prefill", "decode")
    return without_empty(
        {
            "envFromSecret": component.secret,
            "componentType": "worker" if split else component.kind,
            "subComponentType": component.kind if split else None,
            "replicas": component.replicas,
            "runtimeVersionOverride": component.runtime_version,
            "multinode": {"nodeCount": component.nodes} if component.nodes > 1 else None,
            "resources": {"limits": {"gpu": str(component.gpus)}} if component.gpus else None,
            "sharedMemory": _shared_memory(component.shared_memory),
            "volumeMounts": [{"name": claim, "mountPoint": path} for claim, path in component.volumes.items()],
            "envs": variables(component),
            "extraPodSpec": {"mainContainer": container(component)},
        }
    )


def _shared_memory(size: str | None) -> dict[str, Any] | None:
    if size is None:
        return None
    return {"disabled": True} if size == "0" else {"size": size}


def read(spec: Cursor) -> list[Part]:
    """Its services."""
    services = spec.get("services")
    claims = {one.get("name").peek(): one for one in spec.get("pvcs").items()}
    return [_read(services.get(name), name, spec.get("envs"), claims) for name in services.names()]


def _read(at: Cursor, name: str, shared: Cursor, claims: Mapping[str | None, Cursor]) -> Part:
    main = at.at("extraPodSpec", "mainContainer")
    custom = [at.at("resources", side, "custom") for side in ("limits", "requests")]
    container = read_container(main)
    disabled = at.at("sharedMemory", "disabled").text() == "true"
    return Part(
        at=at,
        name=name,
        kind=at.get("componentType"),
        subkind=at.get("subComponentType").text(),
        replicas=at.get("replicas").count(0, 1),
        nodes=nodes_of(at.get("multinode")),
        gpus=at.at("resources", "limits", "gpu") or at.at("resources", "requests", "gpu"),
        runtime_version=at.get("runtimeVersionOverride").text(),
        shared_memory="0" if disabled else at.at("sharedMemory", "size").text(),
        secret=at.get("envFromSecret").text(),
        volumes=_volumes(at, claims),
        env=environment(shared, at.get("envs"), main.get("env")),
        container=container._replace(rdma={**rdma_of(*custom), **container.rdma}),
    )


def _volumes(at: Cursor, claims: Mapping[str | None, Cursor]) -> dict[str, str]:
    """Where claims are mounted. A compilation cache without a mount point is not read."""
    found = {}
    for mount in at.get("volumeMounts").items():
        name = mount.get("name").peek()
        if name and (path := mount.get("mountPoint").text()):
            mount.get("name").done()
            found[name] = path
            if claim := claims.get(name):
                claim.get("name").done()
                if claim.get("create").peek() == "false":
                    claim.get("create").done()
    return found
