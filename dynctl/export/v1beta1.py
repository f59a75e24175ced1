"""`nvidia.com/v1beta1`: components in a list, pods in Kubernetes's own words."""

from __future__ import annotations

from typing import Any

from dynctl.export.cursor import Cursor
from dynctl.export.graph import GROUP, KIND, Component, Graph
from dynctl.export.pods import container, variables, without_empty
from dynctl.export.reading import GPU, Part, environment, nodes_of, read_container

API_VERSION = f"{GROUP}/v1beta1"
MAIN = "main"


def write(graph: Graph) -> dict[str, Any]:
    """The object."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": without_empty({"name": graph.name, "namespace": graph.namespace}),
        "spec": without_empty(
            {"backendFramework": graph.framework, "components": [_component(one) for one in graph.components]}
        ),
    }


def _component(component: Component) -> dict[str, Any]:
    main = {"name": MAIN, **container(component, gpu_resource=GPU)}
    main |= without_empty(
        {
            "env": variables(component),
            "envFrom": [{"secretRef": {"name": component.secret}}] if component.secret else None,
            "volumeMounts": [{"name": claim, "mountPath": path} for claim, path in component.volumes.items()],
        }
    )
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in component.volumes]
    return without_empty(
        {
            "name": component.name,
            "type": component.kind,
            "replicas": component.replicas,
            "runtimeVersionOverride": component.runtime_version,
            "multinode": {"nodeCount": component.nodes} if component.nodes > 1 else None,
            "sharedMemorySize": component.shared_memory,
            "podTemplate": {"spec": without_empty({"containers": [main], "volumes": volumes})},
        }
    )


def read(spec: Cursor) -> list[Part]:
    """Its components."""
    return [_read(item, spec.get("env")) for item in spec.get("components").items()]


def _read(at: Cursor, shared: Cursor) -> Part:
    name = at.get("name").text()
    if name is None:
        raise at.wrong("has no `name`", "every component has one")
    pod = at.at("podTemplate", "spec")
    main = next((one for one in pod.get("containers").items() if one.get("name").peek() == MAIN), None)
    if main is None:
        raise pod.wrong(f"has no container named `{MAIN}`", f"name the engine's container `{MAIN}`")
    main.get("name").done()
    limits = main.at("resources", "limits")
    return Part(
        at=at,
        name=name,
        kind=at.get("type"),
        subkind=None,
        replicas=at.get("replicas").count(0, 1),
        nodes=nodes_of(at.get("multinode")),
        gpus=limits.get(GPU) or main.at("resources", "requests", GPU),
        runtime_version=at.get("runtimeVersionOverride").text(),
        shared_memory=at.get("sharedMemorySize").text(),
        secret=_secret(main),
        volumes=_volumes(pod, main),
        env=environment(shared, main.get("env")),
        container=read_container(main),
    )


def _secret(main: Cursor) -> str | None:
    """The first of the secrets in `envFrom`."""
    for source in main.get("envFrom").items():
        if name := source.at("secretRef", "name").text():
            return name
    return None


def _volumes(pod: Cursor, main: Cursor) -> dict[str, str]:
    """Where claims are mounted. Volumes of other kinds, and mounts with more to them, are not read."""
    claims = {one.get("name").peek(): one for one in pod.get("volumes").items()}
    found = {}
    for mount in main.get("volumeMounts").items():
        volume = claims.get(mount.get("name").peek())
        if volume and (claim := volume.at("persistentVolumeClaim", "claimName").peek()):
            if path := mount.get("mountPath").text():
                found[claim] = path
            for read in (mount.get("name"), volume.get("name"), volume.at("persistentVolumeClaim", "claimName")):
                read.done()
    return found
