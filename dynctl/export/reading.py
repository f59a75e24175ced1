"""What both versions of a DynamoGraphDeployment say in Kubernetes's own words, read with a record of what was read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dynctl.export.cursor import Cursor
from dynctl.export.graph import IPC_LOCK
from dynctl.export.words import Word, command_line

GPU = "nvidia.com/gpu"


class Part(NamedTuple):
    """A component as it was read. `at` is all of it, `kind` what it says it is, `gpus` those of a pod where it says."""

    at: Cursor
    name: str
    kind: Cursor
    subkind: str | None
    replicas: int
    nodes: int
    gpus: Cursor
    runtime_version: str | None
    shared_memory: str | None
    secret: str | None
    volumes: dict[str, str]
    env: dict[str, Cursor]
    container: Container


class Container(NamedTuple):
    """The main container."""

    image: str | None
    pull_policy: str | None
    working_dir: str | None
    words: tuple[Word, ...]
    rdma: Mapping[str, tuple[Cursor, ...]]
    ipc_lock: tuple[Cursor, ...]


def read_container(at: Cursor) -> Container:
    """Image, process, RDMA resources."""
    capabilities = at.at("securityContext", "capabilities", "add").items()
    return Container(
        image=at.get("image").text(),
        pull_policy=at.get("imagePullPolicy").text(),
        working_dir=at.get("workingDir").text(),
        words=command_line(at),
        rdma=rdma_of(at.at("resources", "limits"), at.at("resources", "requests")),
        ipc_lock=tuple(item for item in capabilities if item.peek() == IPC_LOCK),
    )


def nodes_of(multinode: Cursor) -> int:
    """Over how many pods a worker goes: two where the field is there and names no number, as the API has it."""
    if not multinode:
        return 1
    if not multinode.names():
        multinode.done()
    return multinode.get("nodeCount").count(2, 2)


def rdma_of(*resources: Cursor) -> dict[str, tuple[Cursor, ...]]:
    """RDMA devices by the name of their resource, wherever they are asked for."""
    found: dict[str, tuple[Cursor, ...]] = {}
    for where in resources:
        for key in where.names():
            if "rdma" in key and "/" in key:
                found[key] = (*found.get(key, ()), where.get(key))
    return found


def environment(*lists: Cursor) -> dict[str, Cursor]:
    """Variables by name, of later lists before those of earlier ones. What has no plain value is not read."""
    found: dict[str, Cursor] = {}
    for variables in lists:
        for item in variables.items():
            name = item.get("name").peek()
            if name is None:
                raise item.wrong("has no `name`", "write `- name: VARIABLE` and its `value`")
            if not item.get("valueFrom"):
                found[name] = item
    return found


def value_of(variable: Cursor) -> str:
    """The value of one of them; empty where it has none."""
    return variable.get("value").peek() or ""
