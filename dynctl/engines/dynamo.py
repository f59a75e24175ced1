"""Dynamo as engine: its real frontend, and workers of vLLM or simulated ones (mockers) that register with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from dynctl.engines import dynamo_planes as control
from dynctl.engines.base import EngineContext, ServiceContext, flag_name, refuse_frontend_flags
from dynctl.engines.dynamo_log import CAUSES, FRONTEND_PHASES, WORKER_PHASES
from dynctl.engines.spec import LogCause, LogPhase, Probes, ProcessSpec, Restart, Role, Seat
from dynctl.engines.vllm import VITAL, Vllm
from dynctl.engines.vllm_log import CAUSES as VLLM_CAUSES
from dynctl.engines.vllm_log import PHASES as VLLM_PHASES
from dynctl.engines.vllm_worker import render, role_spec, worker_arguments, worker_environment
from dynctl.errors import UsageError
from dynctl.topology.schema import RoleSpec, Topology

LARGEST_SYSTEM_PORT = 32767
"""Dynamo reads DYN_SYSTEM_PORT as a signed 16-bit number (dynamo_runtime's config)."""
MODES: Mapping[str, str] = {"prefill": "prefill", "decode": "decode", "worker": "agg"}
OWNED_FLAGS: Mapping[str, str] = {
    "disaggregation-mode": "use the topology's `roles`",
    "namespace": "use `control.namespace`",
    "endpoint": "use `control.namespace`",
    "discovery-backend": "use `control.discovery`",
    "request-plane": "use `control.request`",
    "response-plane": "it is tcp",
    "event-plane": "use `control.event`",
    "kv-events-config": "use `frontend.routing: kv`",
    "migration-limit": "use `frontend.migration_limit`",
}
OWNED_VARIABLES: Mapping[str, str] = {
    "DYN_SYSTEM_PORT": "leave it out: ports are allocated, this one among those that it can be",
    "DYN_TCP_RPC_PORT": "leave it out: ports are allocated",
    "DYN_NAMESPACE": "use `control.namespace`",
    "DYN_DISCOVERY_BACKEND": "use `control.discovery`",
    "DYN_FILE_KV": "registrations lie in the run's directory",
    "DYN_REQUEST_PLANE": "use `control.request`",
    "DYN_EVENT_PLANE": "use `control.event`",
    "ETCD_ENDPOINTS": "use `control.etcd`",
    "NATS_SERVER": "use `control.nats`",
}
FRONTEND_FLAGS: Mapping[str, str] = {
    "http-host": "use `frontend.host`",
    "http-port": "use `frontend.port`",
    "namespace": "use `control.namespace`",
    "namespace-prefix": "use `control.namespace`",
    "router-mode": "use `frontend.routing`",
    "migration-limit": "use `frontend.migration_limit`",
    "discovery-backend": "use `control.discovery`",
    "request-plane": "use `control.request`",
    "response-plane": "it is tcp",
    "event-plane": "use `control.event`",
    "model-name": "use `served_name`",
    "interactive": "a run has no terminal",
}


class Dynamo:
    """What all of Dynamo's engines share: the frontend, the planes, the versions."""

    router = "dynamo"
    environment = "dynamo"
    pushes = False
    counts_kv = True
    together: Mapping[str, Mapping[str, str]] = {}

    def service_ports(self, topology: Topology) -> dict[str, dict[str, int]]:
        """etcd's and NATS's, where the run has its own."""
        return control.needed(topology)

    def services(self, topology: Topology, context: ServiceContext) -> tuple[ProcessSpec, ...]:
        """etcd and NATS where the run has its own, and Dynamo's frontend, which starts once these serve."""
        refuse_frontend_flags(topology, FRONTEND_FLAGS)
        made = {control.ETCD: control.etcd, control.NATS: control.nats}
        own = tuple(made[name](context) for name in control.needed(topology))
        return (*own, frontend(topology, context))


def frontend(topology: Topology, context: ServiceContext) -> ProcessSpec:
    """Dynamo's frontend. It serves `/live` before there is any worker: `/health` says 200 then, too."""
    front = topology.frontend
    argv = [context.python, "-m", "dynamo.frontend", "--http-host", front.host, "--http-port", str(front.port)]
    argv += ["--namespace", context.namespace, "--router-mode", _mode(topology)]
    if front.migration_limit is not None:
        argv += ["--migration-limit", str(front.migration_limit)]
    for key, value in front.args.items():
        argv += render(flag_name(key), value)
    trace = {
        "DYN_REQUEST_TRACE": "1",
        "DYN_REQUEST_TRACE_FILE_PATH": f"{context.run_dir}/{control.TRACE}",
        "DYN_REQUEST_TRACE_FILE_FORMAT": "jsonl",
        "DYN_REQUEST_TRACE_FILE_FLUSH_INTERVAL_MS": "200",
    }
    return ProcessSpec(
        id="frontend",
        role="frontend",
        argv=tuple(argv),
        env={**control.planes(topology, context), **trace},
        ports={"http": front.port},
        needs=tuple(control.needed(topology)),
        probes=Probes(url=context.url, health="/live", models=None),
        log_phases=tuple(LogPhase(pattern, phase) for pattern, phase in FRONTEND_PHASES),
        log_causes=tuple(LogCause(pattern, cause, fix) for pattern, cause, fix in CAUSES),
        stop_grace_s=30.0,
    )


def _mode(topology: Topology) -> str:
    """Dynamo's word for the routing."""
    return "kv" if topology.frontend.routing in ("cache-aware", "kv-aware") else topology.frontend.routing


def _refuse_variables(topology: Topology, spec: RoleSpec, seat: Seat) -> None:
    for name in spec.env:
        if use := OWNED_VARIABLES.get(name):
            raise UsageError(
                f"`{name}` is set by dynctl and can't be given in env",
                where=topology.where("roles", seat.role, "env", name),
                why=f"Dynamo takes ports up to {LARGEST_SYSTEM_PORT} for it" if name == "DYN_SYSTEM_PORT" else None,
                fix=use,
            )


def worker_process(topology: Topology, seat: Seat, context: EngineContext, argv: tuple[str, ...]) -> ProcessSpec:
    """What every worker has in common; `argv` without the interpreter."""
    service = context.service
    assert service is not None  # noqa: S101 - the plan gives one to every engine with services
    spec = role_spec(topology, seat.role)
    _refuse_variables(topology, spec, seat)
    env = {"DYN_SYSTEM_PORT": str(seat.ports["system"]), "DYN_TCP_RPC_PORT": str(seat.ports["rpc"])}
    return ProcessSpec(
        id=seat.id,
        role=seat.role,
        node=seat.node,
        argv=(context.python, *argv),
        env={**control.planes(topology, service), **env, **spec.env},
        gpus=seat.gpus,
        gpu_uuids=seat.gpu_uuids,
        nics=seat.nics,
        numa=seat.numa,
        cpus=seat.cpus,
        memory_nodes=seat.memory_nodes,
        ports=seat.ports,
        reasons=seat.reasons,
        needs=tuple(control.needed(topology)),
        probes=Probes(url=f"http://{control.HOST}:{seat.ports['system']}", health="/health", models=None),
        log_phases=tuple(LogPhase(pattern, phase) for pattern, phase in WORKER_PHASES),
        log_causes=tuple(LogCause(pattern, cause, fix) for pattern, cause, fix in CAUSES),
        stop_grace_s=20.0,
        restart=Restart(max=spec.restart.max, backoff_s=spec.restart.backoff_s, cap_s=spec.restart.cap_s),
    )


class DynamoVllm(Dynamo, Vllm):
    """`dynamo.vllm` workers, KV handed over by vLLM's NIXL connector."""

    name = "dynamo-vllm"
    simulated = False
    owned_flags: Mapping[str, str] = {**Vllm.owned_flags, **OWNED_FLAGS}
    together: Mapping[str, Mapping[str, str]] = {"1.6": {"vllm": "0.31", "nixl": "1.4.1"}}

    def packages(self, topology: Topology) -> tuple[str, ...]:
        """Dynamo, vLLM, and NIXL where there is KV to hand over."""
        return ("dynamo", *super().packages(topology))

    def port_needs(self, topology: Topology, role: Role) -> dict[str, int]:
        """The system server's, the request plane's, NIXL's side channel, and KV events where the router wants them."""
        ranks = role_spec(topology, role).dp
        ports = {"system": 1, "rpc": 1}
        if role != "worker":
            ports["side_channel"] = ranks
        if sends_events(topology, role):
            ports["kv_events"] = ranks
        return ports

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        """A worker with vLLM's engine in it."""
        spec = role_spec(topology, seat.role)
        argv = ("-m", "dynamo.vllm", *self._arguments(topology, spec, seat, context))
        worker = worker_process(topology, seat, context, argv)
        return msgspec.structs.replace(
            worker,
            env={**worker_environment(topology, spec, seat, context), **worker.env},
            log_phases=(*(LogPhase(pattern, phase) for pattern, phase in VLLM_PHASES), *worker.log_phases),
            log_causes=(*worker.log_causes, *(LogCause(*cause) for cause in VLLM_CAUSES)),
            ucx=seat.role != "worker",
            vital=VITAL,
            sockets_variable="VLLM_RPC_BASE_PATH",
        )

    def _arguments(self, topology: Topology, spec: RoleSpec, seat: Seat, context: EngineContext) -> Iterator[str]:
        yield from ("--model", context.model, "--served-model-name", topology.served_name)
        yield from ("--disaggregation-mode", MODES[seat.role])
        if sends_events(topology, seat.role):
            # vLLM binds where the address has a `*`, and connects where it has none
            events = {
                "publisher": "zmq",
                "topic": "kv-events",
                "endpoint": f"tcp://*:{seat.ports['kv_events']}",
                "enable_kv_cache_events": True,
            }
            yield from ("--kv-events-config", msgspec.json.encode(events).decode())
        yield from worker_arguments(topology, spec, seat, context)


def sends_events(topology: Topology, role: Role) -> bool:
    """Of its KV cache to the router: it places prompts, which decode workers don't compute."""
    return _mode(topology) == "kv" and role != "decode"


class DynamoMocker(Dynamo):
    """`dynamo.mocker`: workers that register, batch and answer as real ones do, on no GPU and with no weights."""

    name = "dynamo-mocker"
    simulated = True
    owned_flags: Mapping[str, str] = {
        **OWNED_FLAGS,
        "model-path": "use the topology's `model`",
        "model-name": "use the topology's `served_name`",
        "bootstrap-ports": "ports are allocated",
        "num-workers": "use `roles.<role>.workers`",
        "data-parallel-size": "use `roles.<role>.dp`",
    }
    must_agree: Mapping[str, str] = {"block-size": "64"}

    def packages(self, topology: Topology) -> tuple[str, ...]:
        """Dynamo alone."""
        return ("dynamo",)

    def port_needs(self, topology: Topology, role: Role) -> dict[str, int]:
        """The system server's, the request plane's, and where prefill and decode meet."""
        return {"system": 1, "rpc": 1, **({"bootstrap": 1} if role == "prefill" else {})}

    def block_tokens(self, topology: Topology, role: Role, *, on_gpu: bool) -> int:
        """Not looked at: no KV moves."""
        return 0

    def value_type(self, topology: Topology, role: Role, *, on_gpu: bool) -> tuple[str | None, str | None]:
        """Not looked at: no KV moves."""
        return None, None

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        """A simulated worker. Its `/health` and `/live` say `notready` even while it serves; its metrics are there."""
        spec = role_spec(topology, seat.role)
        argv = ["-m", "dynamo.mocker", "--model-path", context.model, "--model-name", topology.served_name]
        argv += ["--disaggregation-mode", MODES[seat.role]]
        if "bootstrap" in seat.ports:
            argv += ["--bootstrap-ports", str(seat.ports["bootstrap"])]
        if spec.dp > 1:
            argv += ["--data-parallel-size", str(spec.dp)]
        for key, value in spec.args.items():
            argv += render(flag_name(key), value)
        worker = worker_process(topology, seat, context, tuple(argv))
        return msgspec.structs.replace(worker, probes=msgspec.structs.replace(worker.probes, health="/metrics"))
