"""The topology's `x-k8s` section: what a DynamoGraphDeployment says and bare metal has no use for."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from dynctl.errors import UsageError
from dynctl.topology.base import Env, Section, Text
from dynctl.topology.nodes import shown
from dynctl.topology.schema import Topology

KEY = "x-k8s"
DNS_LABEL = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
QUANTITY = (
    r"^\+?([0-9]{1,15}(\.[0-9]{0,9})?|\.[0-9]{1,9})"  # the number, then its unit
    r"([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?$"
)
VERSION = r"^(0|[1-9][0-9]{0,3})(\.(0|[1-9][0-9]{0,3})){2}$"

Dns = Annotated[str, StringConstraints(pattern=rf"^{DNS_LABEL}(\.{DNS_LABEL})*$", max_length=253)]
"""A name of Kubernetes's: of a graph, a secret."""
Label = Annotated[str, StringConstraints(pattern=f"^{DNS_LABEL}$")]
"""One without dots: of a namespace, and of a claim, since the volume of a pod is named after it."""


def _plain_zero(size: str) -> str:
    """Nothing is `0` however it was spelled: v1alpha1 has another word for it."""
    return size if re.match(r"[+0.]*[1-9]", size) else "0"


Size = Annotated[str, StringConstraints(pattern=QUANTITY), AfterValidator(_plain_zero)]


class PodSettings(Section):
    """What pods are made of.

    `volumes`: mount path by name of an existing claim. `runtime_version`: Dynamo's in the image, where its tag does
    not say it.
    """

    image: Text | None = None
    runtime_version: Annotated[str, StringConstraints(pattern=VERSION)] | None = None
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    working_dir: Text | None = None
    secret: Dns | None = None
    shared_memory: Size | None = None
    volumes: dict[Label, Annotated[str, StringConstraints(pattern="^/[^:]*$")]] = Field(default={})
    env: Env = Field(default={})


class ComponentSettings(PodSettings):
    """What differs for one component. `name`: its own; `nodes`: over how many pods each of its workers goes."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?$")] | None = None
    nodes: Annotated[int, Field(ge=2, le=1024)] | None = None


class Components(Section):
    """By role."""

    frontend: ComponentSettings = ComponentSettings()
    prefill: ComponentSettings = ComponentSettings()
    decode: ComponentSettings = ComponentSettings()
    worker: ComponentSettings = ComponentSettings()


class K8sSettings(PodSettings):
    """Of all components, and what is of the graph as a whole. `rdma`: the device plugin's resource, or none."""

    name: Dns | None = None
    namespace: Label | None = None
    rdma: Annotated[str, StringConstraints(pattern=r"^(none|[a-z0-9.-]{1,200}/[A-Za-z0-9._-]{1,63})$")] | None = None
    components: Components = Components()

    def of(self, role: str) -> ComponentSettings:
        """A component's settings: its own, else those of all; volumes and environment are added up."""
        own: ComponentSettings = getattr(self.components, role)
        shared = {key: getattr(self, key) for key in PodSettings.model_fields}
        mine = {key: getattr(own, key) for key in own.model_fields_set}
        both = {key: {**shared[key], **mine.get(key, {})} for key in ("volumes", "env")}
        return ComponentSettings.model_construct(**{**shared, **mine, **both})


S = TypeVar("S", bound=Section)


def settings(topology: Topology) -> K8sSettings:
    """The section of a topology; UsageError, with its place, where it is wrong."""
    return _checked(K8sSettings, topology.written(KEY) or {}, topology)


def _checked(section: type[S], data: Any, topology: Topology) -> S:
    try:
        return section.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = (KEY, *(segment for segment in first["loc"] if segment != "[key]"))
        said = (first.get("ctx") or {}).get("cause") or first["msg"]
        raise UsageError(
            f"`{shown('.'.join(map(str, path)))}` is wrong: {shown(str(said), 200)}",
            where=topology.where(*path),
            why="the section says what `dynctl export k8s` writes",
            fix=f"its keys: {', '.join(section.model_fields)}; docs/export.md shows them",
        ) from None
