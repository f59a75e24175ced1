"""vllm-router as the frontend of vLLM's workers: its command line, which names them all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from dynctl.engines.base import ServiceContext, flag_name, refuse_frontend_flags
from dynctl.engines.spec import LogCause, LogPhase, Probes, ProcessSpec
from dynctl.engines.vllm_worker import render
from dynctl.topology.router_fit import POLICIES
from dynctl.topology.schema import Topology

FRONTEND = "frontend"
PORTS: Mapping[str, int] = {"metrics": 1}
"""Besides the one that clients use."""
OWNED_FLAGS: Mapping[str, str] = {
    "host": "use `frontend.host`",
    "port": "use `frontend.port`",
    "policy": "use `frontend.routing`",
    "prefill": "it follows from `roles`",
    "decode": "it follows from `roles`",
    "worker-urls": "it follows from `roles`",
    "vllm-pd-disaggregation": "it follows from `roles`",
    "kv-connector": "it is nixl",
    "prometheus-host": "it listens on loopback",
    "prometheus-port": "ports are allocated",
    "cors-allowed-origins": "use `frontend.cors_origins`",
    "api-key": "command lines can be read by everybody on the machine, and workers on loopback ask for none",
    "service-discovery": "it follows from `roles`",
    "vllm-discovery-address": "it follows from `roles`",
}


def frontend(topology: Topology, context: ServiceContext, command: str, workers: Sequence[ProcessSpec]) -> ProcessSpec:
    """It is started once its workers serve: until they do it listens on no port.

    Its `/health` says 200 for minutes after it has lost a worker, so that only `/liveness` is asked.
    """
    front, ports = topology.frontend, context.ports[FRONTEND]
    argv = [command, "--host", front.host, "--port", str(front.port), "--policy", POLICIES[front.routing]]
    argv += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(ports["metrics"])]
    argv += _workers(workers)
    if front.cors_origins:
        argv += ["--cors-allowed-origins", *front.cors_origins]
    argv += _rest(topology)
    return ProcessSpec(
        id=FRONTEND,
        role="frontend",
        argv=tuple(argv),
        ports={"http": front.port, **ports},
        needs=tuple(worker.id for worker in workers),
        probes=Probes(url=context.url, health="/liveness", models=None, metrics=None),
        log_phases=(LogPhase(r"Waiting for \d+ unique hosts", "waiting for its workers"),),
        log_causes=(
            LogCause(r"Timeout \d+s waiting for hosts", "its workers don't answer: it starts only when all of them do"),
        ),
        stop_grace_s=30.0,
    )


def _workers(workers: Sequence[ProcessSpec]) -> Iterator[str]:
    yield from ("--vllm-pd-disaggregation", "--kv-connector", "nixl")
    for worker in workers:
        if url := worker.probes.url:
            yield from (f"--{worker.role}", url, *(("none",) if worker.role == "prefill" else ()))


def _rest(topology: Topology) -> Iterator[str]:
    """The topology's `args`, and what it needs to notice within seconds what by its own defaults takes minutes."""
    given = {flag_name(key): value for key, value in topology.frontend.args.items()}
    refuse_frontend_flags(topology, OWNED_FLAGS)
    every_s = str(math.ceil(topology.health.canary_s))
    quick = {
        "health-check-interval-secs": every_s,
        "cb-timeout-duration-secs": every_s,
        "worker-startup-check-interval": "1",
        "worker-startup-timeout-secs": str(math.ceil(topology.ready.timeout_s)),
    }
    for flag, value in {**quick, **given}.items():
        yield from render(flag, value)
