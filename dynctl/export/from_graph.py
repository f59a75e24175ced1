"""A graph of Dynamo components as a topology, and what of it a topology has no words for."""

from __future__ import annotations

from typing import Any

from dynctl.engines.dynamo import FRONTEND_FLAGS
from dynctl.export import dialect
from dynctl.export.cursor import Left
from dynctl.export.engine_words import Worker, take
from dynctl.export.environment_of import share_out
from dynctl.export.find_graph import READERS, find_graph
from dynctl.export.graph import Kind
from dynctl.export.k8s_settings import KEY
from dynctl.export.reading import Part
from dynctl.export.roles_of import roles_of
from dynctl.export.to_graph import NAMES, NO_RDMA, RDMA
from dynctl.export.words import flags_of
from dynctl.topology.nodes import Node
from dynctl.topology.schema import as_name

OPERATORS_SHARED_MEMORY = "8Gi"
NO_WORD = "a topology has no key for it"
Data = dict[str, Any]


def from_documents(documents: tuple[Node, ...], source: str) -> tuple[Data, list[Left]]:
    """The topology's data, and every field that was left out. UsageError where the file holds no such deployment."""
    graph, beside = find_graph(documents, source)
    spec = graph.get("spec")
    front, workers = roles_of(graph, READERS[graph.get("apiVersion").text() or ""](spec))
    first = next(iter(workers.values()))
    name = graph.at("metadata", "name").text()
    if name is None:
        raise graph.get("metadata").wrong("has no `name`", "every object has one")
    frontend = _frontend(front, workers)
    transport = _transport(workers)
    roles = {role: _role(worker) for role, worker in workers.items()}
    k8s: Data = {"name": name if name != as_name(name) else None, "namespace": graph.at("metadata", "namespace").text()}
    if "prefill" in workers:
        transport["require"], k8s["rdma"] = _rdma(workers)
    parts: dict[str, Part] = {"frontend": front, **{role: worker.part for role, worker in workers.items()}}
    pods = {role: _pod(role, part) for role, part in parts.items()}
    share_out(parts, pods, k8s, transport, roles)
    data: Data = {
        "schema": 1,
        "name": as_name(name) or "imported",
        "model": first.model,
        "served_name": first.served,
        "engine": first.speech.engine,
        "transport": _said(transport),
        "frontend": frontend,
        "roles": {role: _said(spec) for role, spec in roles.items()},
        KEY: _said({**k8s, **_common(pods)}),
    }
    return {key: value for key, value in data.items() if value not in (None, {})}, [*graph.left(NO_WORD), *beside]


def _said(data: Data) -> Data:
    return {key: value for key, value in data.items() if value not in (None, {})}


def _frontend(front: Part, workers: dict[str, Worker]) -> Data:
    mode = port = migrations = None
    args: Data = {}
    for flag in flags_of(front.container.words):
        if flag.name == dialect.ROUTER_FLAG and _routing(flag.value):
            mode = flag.value
        elif flag.name == dialect.PORT_FLAG and (flag.value or "").isdecimal():
            port = flag.value
        elif flag.name == dialect.MIGRATION_FLAG and (flag.value or "").isdecimal():
            migrations = flag.value
        else:
            take(flag, args, FRONTEND_FLAGS)
            continue
        flag.done()
    for name in (dialect.ROUTER_VARIABLE, dialect.PORT_VARIABLE):
        if variable := front.env.get(name):
            value = variable.get("value").peek() or ""
            if name == dialect.ROUTER_VARIABLE and _routing(value):
                mode = mode or value
            elif name == dialect.PORT_VARIABLE and value.isdecimal():
                port = port or value
            else:
                continue
            variable.done()
            del front.env[name]
    routing = _routing(mode)
    for worker in workers.values():
        if worker.kv_events and routing == _routing("kv"):
            worker.kv_events.done()
        elif worker.kv_events:
            worker.kv_events.leave("the router does not ask for it")
    return _said(
        {
            "routing": routing if routing != "round-robin" else None,
            "port": int(port) if port and int(port) != dialect.HTTP_PORT else None,
            "migration_limit": int(migrations) if migrations else None,
            "args": args,
        }
    )


def _routing(mode: str | None) -> str | None:
    """The topology's word for a router mode; None where it has none."""
    if mode == "round-robin":
        return mode
    return next((word for word in reversed(dialect.ROUTER_MODES) if dialect.ROUTER_MODES[word] == mode), None)


def _role(worker: Worker) -> Data:
    gpus = worker.part.gpus
    each, left = divmod(worker.gpus, worker.part.nodes)
    if gpus and (left or gpus.peek() != str(each)):
        gpus.leave(f"a pod's GPUs follow from tp*pp*dp, which is {worker.gpus} over {worker.part.nodes} pods")
    gpus.done()
    return {"workers": worker.part.replicas, **worker.sizes, "args": worker.args}


def _transport(workers: dict[str, Worker]) -> Data:
    """Of the KV path, what the workers say alike."""
    first, *others = [worker.transport for worker in workers.values()]
    return {key: value for key, value in first.items() if all(other.get(key, value) == value for other in others)}


def _rdma(workers: dict[str, Worker]) -> tuple[str | None, str | None]:
    """The transport that the resources ask for, and the resource where it is not the usual one."""
    names: list[str] = []
    for worker in workers.values():
        asked = worker.part.container.rdma
        names += asked
        for counts in asked.values():
            for count in counts:
                if count.peek() != str(worker.gpus // worker.part.nodes):
                    count.leave("one for each GPU of the pod is asked for")
                count.done()
        for capability in worker.part.container.ipc_lock if asked else ():
            capability.done()
    if not names:
        return None, NO_RDMA
    return "rdma", names[0] if names[0] != RDMA else None


def _pod(role: str, part: Part) -> Data:
    """A component's settings."""
    kinds: dict[str, Kind] = {"frontend": "frontend", "prefill": "prefill", "decode": "decode", "worker": "worker"}
    memory = part.shared_memory or (OPERATORS_SHARED_MEMORY if role != "frontend" else None)
    return {
        "name": part.name if part.name != NAMES[kinds[role]] else None,
        "nodes": part.nodes if part.nodes > 1 else None,
        "image": part.container.image,
        "runtime_version": part.runtime_version,
        "pull_policy": part.container.pull_policy,
        "working_dir": part.container.working_dir,
        "secret": part.secret,
        "shared_memory": memory,
        "volumes": part.volumes,
    }


def _common(pods: dict[str, Data]) -> Data:
    """What all components have alike once, the rest by component."""
    shared: Data = {}
    for key in ("image", "runtime_version", "pull_policy", "working_dir", "secret", "shared_memory"):
        values = [pod[key] for pod in pods.values()]
        if values[0] is not None and all(value == values[0] for value in values):
            shared[key] = values[0]
            for pod in pods.values():
                pod[key] = None
    for key in ("volumes", "env"):
        first, *others = [pod[key] for pod in pods.values()]
        shared[key] = {name: value for name, value in first.items() if all(o.get(name) == value for o in others)}
        for pod in pods.values():
            pod[key] = {name: value for name, value in pod[key].items() if name not in shared[key]}
    own = {role: said for role, pod in pods.items() if (said := _said(pod))}
    return {**_said(shared), "components": own}
