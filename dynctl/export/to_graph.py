"""A topology as a graph of Dynamo components, and what of it a graph has no place for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from msgspec import structs

from dynctl.engines.base import flag_name, refuse_disagreement, refuse_frontend_flags, refuse_owned_flags
from dynctl.engines.dynamo import FRONTEND_FLAGS
from dynctl.errors import UsageError
from dynctl.export import dialect
from dynctl.export.dialect import Dialect
from dynctl.export.graph import Component, Graph, Kind
from dynctl.export.k8s_settings import K8sSettings, settings
from dynctl.export.names import refuse_names
from dynctl.plan.redact import SECRET_NAME
from dynctl.topology.node_spec import span_of
from dynctl.topology.roles import RoleSpec
from dynctl.topology.schema import Topology

RDMA = "rdma/ib"
NO_RDMA = "none"
SHARED_MEMORY = "16Gi"
RDMA_ENV = {
    "UCX_TLS": "rc_x,rc,dc_x,dc,cuda_copy,cuda_ipc",
    "UCX_RNDV_SCHEME": "get_zcopy",
    "UCX_RNDV_THRESH": "0",
}
"""Of Dynamo's own example for RDMA, for workers whose environment says nothing of UCX."""
NAMES: dict[Kind, str] = {
    "frontend": "Frontend",
    "prefill": "PrefillWorker",
    "decode": "DecodeWorker",
    "worker": "Worker",
}
_LEFT_OUT = ("python", "nodes", "control", "secret_file", "ready", "health", "slo")


def to_graph(topology: Topology, image: str | None = None) -> tuple[Graph, tuple[str, ...]]:
    """The graph, and the keys of the topology that it leaves out. UsageError where there can be none.

    `image`: of every component that names none.
    """
    chosen = settings(topology)
    speech = dialect.of_engine(topology.engine)
    _refuse(topology, speech)
    named = chosen.model_copy(update={"image": image}) if image else chosen
    front = _frontend(topology, named)
    workers = [_worker(topology, kind, topology.role(kind), named, speech) for kind in _kinds(topology)]
    for component in (front, *workers):
        if component.image is None:
            raise UsageError(
                f"there is no image for {component.name}",
                where=topology.where("x-k8s"),
                why="a pod runs an image with Dynamo and the engine; which one depends on the cluster's drivers",
                fix="`--image nvcr.io/nvidia/ai-dynamo/vllm-runtime:VERSION`, or `x-k8s: {image: ...}` in the file",
            )
    graph = Graph(
        name=chosen.name or topology.name.rstrip("-"),
        namespace=chosen.namespace,
        framework=speech.framework,
        components=(front, *workers),
    )
    refuse_names(topology, graph)
    return graph, tuple(_left_out(topology, speech))


def _kinds(topology: Topology) -> tuple[Kind, ...]:
    return ("prefill", "decode") if topology.disaggregated else ("worker",)


def _refuse(topology: Topology, speech: Dialect) -> None:
    if topology.model.startswith("builtin:"):
        raise UsageError(
            f"`{topology.model}` can't be exported: it is made on the machine that serves it",
            where=topology.where("model"),
            fix="name a hub id, or a path within the pods",
        )
    if owner := dialect.adapter_of(speech):
        refuse_owned_flags(topology, owner)
        refuse_disagreement(topology, owner)
    if topology.router == "dynamo":
        refuse_frontend_flags(topology, FRONTEND_FLAGS)
    derived = {*speech.model, speech.served, *speech.fixed, *sum(speech.sizes.values(), ()), *dialect.DERIVED}
    for name, role in topology.roles.present():
        for key in role.args:
            if flag_name(key) in derived:
                raise UsageError(
                    f"`{key}` follows from the rest of the topology and can't be given in args",
                    where=topology.where("roles", name, "args", key),
                    fix="leave it out",
                )
        for size in ("tp", "pp", "dp"):
            if getattr(role, size) > 1 and size not in speech.sizes and speech.sizes:
                raise UsageError(
                    f"`{size}` is {getattr(role, size)}, which {speech.module} has no flag for",
                    where=topology.where("roles", name, size),
                    fix="write the engine's own flag into `args`",
                )


def _pod(kind: Kind, chosen: K8sSettings) -> Component:
    """What the settings alone say of a component."""
    own = chosen.of(kind)
    return Component(
        name=own.name or NAMES[kind],
        kind=kind,
        image=own.image,
        runtime_version=own.runtime_version,
        pull_policy=own.pull_policy,
        working_dir=own.working_dir,
        env=own.env,
        secret=own.secret,
        shared_memory=own.shared_memory,
        volumes=own.volumes,
    )


def _frontend(topology: Topology, chosen: K8sSettings) -> Component:
    return structs.replace(
        _pod("frontend", chosen),
        command=("python3", "-m", dialect.FRONTEND_MODULE),
        args=tuple(_router_arguments(topology)),
    )


def _router_arguments(topology: Topology) -> Iterator[str]:
    front = topology.frontend
    if mode := dialect.ROUTER_MODES.get(front.routing):
        yield from (f"--{dialect.ROUTER_FLAG}", mode)
    if topology.router == "dynamo":  # else they are another router's
        if front.migration_limit is not None:
            yield from (f"--{dialect.MIGRATION_FLAG}", str(front.migration_limit))
        yield from dialect.flags(front.args)


def _worker(topology: Topology, kind: Kind, role: RoleSpec, chosen: K8sSettings, speech: Dialect) -> Component:
    pod = _pod(kind, chosen)
    nodes = chosen.of(kind).nodes or span_of(role)
    if role.gpus_per_worker % nodes:
        raise UsageError(
            f"a {kind} worker's {role.gpus_per_worker} GPUs can't be shared out over {nodes} pods",
            where=topology.where("x-k8s", "components", kind, "nodes"),
            fix="make tp*pp*dp a multiple of it",
        )
    gpus = role.gpus_per_worker // nodes if speech.framework else 0
    resource = chosen.rdma or (NO_RDMA if topology.transport.require in ("shm", "tcp") else RDMA)
    rdma = gpus if topology.disaggregated and resource != NO_RDMA else 0
    env = {**pod.env, **(topology.transport.env if topology.disaggregated else {}), **role.env}
    over_ucx = topology.transport.backend == "ucx" or speech.framework != "vllm"  # which takes no other from here
    if rdma and over_ucx and not any(name.startswith("UCX_") for name in env):
        env |= RDMA_ENV
    return structs.replace(
        pod,
        replicas=role.workers,
        nodes=nodes,
        command=("python3", "-m", speech.module),
        args=tuple(_arguments(topology, kind, role, speech)),
        env={name: value for name, value in env.items() if not is_secret(name, value)},
        gpus=gpus,
        rdma=rdma,
        rdma_resource=resource if rdma else RDMA,
        shared_memory=pod.shared_memory or SHARED_MEMORY,
    )


def is_secret(name: str, value: str) -> bool:
    """What belongs in a Secret of the cluster's and not in a file."""
    return bool(SECRET_NAME.search(name)) and not value.startswith("/")


def _arguments(topology: Topology, kind: Kind, role: RoleSpec, speech: Dialect) -> Iterator[str]:
    yield from (f"--{speech.model[0]}", topology.model)
    if topology.served_name != topology.model:
        yield from (f"--{speech.served}", topology.served_name)
    for size, spellings in speech.sizes.items():
        if (ways := getattr(role, size)) > 1:
            yield from (f"--{spellings[0]}", str(ways))
    yield from dialect.flags(role.args)
    if kind != "worker":
        yield from (f"--{dialect.MODE_FLAG}", kind)
        yield from dialect.flags(speech.fixed)
        if speech.framework == "vllm":
            yield from (f"--{dialect.KV_TRANSFER_FLAG}", _kv_transfer(topology, kind))
    # the router follows the caches where prompts are computed
    if kind != "decode" and speech.framework == "vllm" and dialect.ROUTER_MODES.get(topology.frontend.routing) == "kv":
        yield from (f"--{dialect.KV_EVENTS_FLAG}", dialect.KV_EVENTS)


def _kv_transfer(topology: Topology, kind: Kind) -> str:
    transport = topology.transport
    extra: dict[str, Any] = dict(transport.connector)
    if "backend" in transport.model_fields_set:
        extra = {"backends": [transport.backend.upper()], **extra}
    if "lease_s" in transport.model_fields_set:
        extra = {"kv_lease_duration": math.ceil(transport.lease_s), **extra}
    config: dict[str, Any] = {
        "kv_connector": dialect.CONNECTORS[transport.direction],
        "kv_role": dialect.KV_ROLES[kind],
        **({"kv_connector_extra_config": extra} if extra else {}),
    }
    return json.dumps(config)


def _left_out(topology: Topology, speech: Dialect) -> Iterator[str]:
    """Written keys that change nothing in the graph, as dotted paths."""
    yield from (key for key in _LEFT_OUT if key in topology.model_fields_set)
    routing, written = topology.frontend.routing, topology.frontend.model_fields_set
    said = {"kind"} if topology.router != "vllm-router" else set()
    said |= {"args", "migration_limit"} if topology.router == "dynamo" else set()
    said |= {"routing"} if routing == "round-robin" or routing in dialect.ROUTER_MODES else set()
    said |= {"port"} if topology.frontend.port == dialect.HTTP_PORT else set()
    yield from (f"frontend.{key}" for key in sorted(written - said))
    if speech.framework != "vllm":
        for key in ("backend", "lease_s", "connector"):
            if key in topology.transport.model_fields_set:
                yield f"transport.{key.removesuffix('_s')}"
    for name, role in topology.roles.present():
        for key in ("restart", "share", "pin"):
            if key in role.model_fields_set:
                yield f"roles.{name}.{key}"
        yield from (f"roles.{name}.env.{key}" for key, value in role.env.items() if is_secret(key, value))
    yield from (f"transport.env.{key}" for key, value in topology.transport.env.items() if is_secret(key, value))
