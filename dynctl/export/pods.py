"""Kubernetes's own parts of a component, which both versions have alike: the container and its resources."""

from __future__ import annotations

from typing import Any

from dynctl.export.graph import IPC_LOCK, Component


def variables(component: Component) -> list[dict[str, str]]:
    """`env` as Kubernetes lists it."""
    return [{"name": name, "value": value} for name, value in component.env.items()]


def container(component: Component, *, gpu_resource: str | None = None) -> dict[str, Any]:
    """Image, process, RDMA; GPUs under `gpu_resource` where the version counts them here."""
    limits = {gpu_resource: str(component.gpus)} if gpu_resource and component.gpus else {}
    rdma = {component.rdma_resource: str(component.rdma)} if component.rdma else {}
    resources = {key: value for key, value in (("limits", {**limits, **rdma}), ("requests", rdma)) if value}
    parts: dict[str, Any] = {
        "image": component.image,
        "imagePullPolicy": component.pull_policy,
        "workingDir": component.working_dir,
        "securityContext": {"capabilities": {"add": [IPC_LOCK]}} if rdma else None,
        "resources": resources,
        "command": list(component.command),
        "args": list(component.args),
    }
    return without_empty(parts)


def without_empty(parts: dict[str, Any]) -> dict[str, Any]:
    """The entries that say something."""
    return {key: value for key, value in parts.items() if value not in (None, {}, [])}
