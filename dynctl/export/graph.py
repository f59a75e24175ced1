"""A DynamoGraphDeployment without the spelling of a version: what v1alpha1 and v1beta1 both say."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

Kind = Literal["frontend", "prefill", "decode", "worker"]
Api = Literal["v1beta1", "v1alpha1"]
GROUP = "nvidia.com"
KIND = "DynamoGraphDeployment"
IPC_LOCK = "IPC_LOCK"
FRAMEWORKS = ("vllm", "sglang", "trtllm")
"""What `backendFramework` may be; a graph of mockers has none."""
_VERSION_TAG = re.compile(r"[^@]*:[vV]?\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?(@.*)?", re.ASCII)


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """One pool of pods, all alike.

    `gpus` and `rdma` (how many of the resource `rdma_resource`) are of one pod; a worker has `nodes` of them.
    `shared_memory`: size of /dev/shm as a Kubernetes quantity, "0" for none, None for the operator's default.
    `runtime_version`: Dynamo's, for the operator, where the image's tag does not say it.
    `volumes`: mount path by name of the claim. `secret`: its keys become environment variables.
    """

    name: str
    kind: Kind
    replicas: int = 1
    nodes: int = 1
    image: str | None = None
    runtime_version: str | None = None
    pull_policy: str | None = None
    working_dir: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str] = {}
    secret: str | None = None
    gpus: int = 0
    rdma: int = 0
    rdma_resource: str = "rdma/ib"
    shared_memory: str | None = None
    volumes: dict[str, str] = {}


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """A whole deployment."""

    name: str
    namespace: str | None = None
    framework: str | None = None
    components: tuple[Component, ...] = ()

    def claims(self) -> tuple[str, ...]:
        """The persistent volume claims that its components mount, each once."""
        return tuple(dict.fromkeys(claim for component in self.components for claim in component.volumes))


def unversioned(graph: Graph) -> tuple[str, ...]:
    """The components of which nothing says the runtime's version: neither their image's tag nor they themselves."""
    silent = (one for one in graph.components if not one.runtime_version)
    return tuple(one.name for one in silent if not _VERSION_TAG.fullmatch(one.image or ""))
