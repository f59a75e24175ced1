"""Dynamo's workers of SGLang and TensorRT-LLM. In both prefill writes KV into decode's memory, through NIXL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from dynctl.engines.base import EngineContext, flag_name
from dynctl.engines.dynamo import MODES, OWNED_FLAGS, Dynamo, sends_events, worker_process
from dynctl.engines.spec import LogCause, LogPhase, ProcessSpec, Role, Seat
from dynctl.engines.vllm_worker import render, role_spec, ucx_environment
from dynctl.errors import UsageError
from dynctl.topology.schema import RoleSpec, Topology

MODEL_FLAGS: Mapping[str, str] = {
    "model": "use the topology's `model`",
    "model-path": "use the topology's `model`",
    "served-model-name": "use the topology's `served_name`",
}
OUT_OF_MEMORY = LogCause(
    r"(?i)cuda out of memory|OutOfMemoryError|not enough memory",
    "the GPU's memory does not suffice",
    "give the worker more GPUs (`tp`), or the engine a smaller share of them in roles.*.args",
)


class _Pushing(Dynamo):
    """What both have in common."""

    simulated = False
    pushes = True
    counts_kv = False

    def block_tokens(self, topology: Topology, role: Role, *, on_gpu: bool) -> int:
        """Not looked at: no bytes are counted."""
        return 0

    def value_type(self, topology: Topology, role: Role, *, on_gpu: bool) -> tuple[str | None, str | None]:
        """Not looked at: no bytes are counted."""
        return None, None


class DynamoSglang(_Pushing):
    """`dynamo.sglang` workers. Prefill and decode meet at prefill's bootstrap port."""

    name = "dynamo-sglang"
    together: Mapping[str, Mapping[str, str]] = {"1.6": {"sglang": "0.5.21", "nixl": "1.5.0"}}
    must_agree: Mapping[str, str] = {"page-size": "1", "dtype": "auto", "kv-cache-dtype": "auto"}
    owned_flags: Mapping[str, str] = {
        **OWNED_FLAGS,
        **MODEL_FLAGS,
        **{f"{short}-size": f"use `roles.<role>.{short}`" for short in ("tp", "pp", "dp")},
        "tensor-parallel-size": "use `roles.<role>.tp`",
        "pipeline-parallel-size": "use `roles.<role>.pp`",
        "data-parallel-size": "use `roles.<role>.dp`",
        "disaggregation-bootstrap-port": "ports are allocated",
        "disaggregation-transfer-backend": "it is nixl",
        "host": "workers listen on their own node's address",
        "port": "ports are allocated",
    }

    def packages(self, topology: Topology) -> tuple[str, ...]:
        """Dynamo, SGLang, and NIXL where there is KV to hand over."""
        return ("dynamo", "sglang", *(("nixl",) if topology.disaggregated else ()))

    def port_needs(self, topology: Topology, role: Role) -> dict[str, int]:
        """SGLang's own port, from which it derives those of its ranks, and where decode meets prefill."""
        needs = {"system": 1, "rpc": 1, "port": 1}
        if role == "prefill":
            needs["bootstrap"] = 1
        if sends_events(topology, role):
            needs["kv_events"] = role_spec(topology, role).dp
        return needs

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        """Decode keeps the addresses of prefill's ranks: it has to be started again after a prefill was."""
        spec = role_spec(topology, seat.role)
        worker = worker_process(
            topology, seat, context, ("-m", "dynamo.sglang", *_sglang(topology, spec, seat, context))
        )
        backend = {"SGLANG_DISAGGREGATION_NIXL_BACKEND": topology.transport.backend.upper()}
        after: Role | None = "prefill" if seat.role == "decode" else None
        ready = LogPhase(r"The server is fired up and ready to roll|Application startup complete", "registering")
        return msgspec.structs.replace(
            worker,
            env={**_environment(topology, seat, context), "SGLANG_HOST_IP": seat.address, **backend, **worker.env},
            log_phases=(
                LogPhase(r"(?i)load weight begin", "loading weights"),
                LogPhase(r"(?i)capture cuda graph begin", "capturing CUDA graphs"),
                ready,
                *worker.log_phases,
            ),
            log_causes=(OUT_OF_MEMORY, *worker.log_causes),
            ucx=seat.role != "worker",
            restart=msgspec.structs.replace(worker.restart, after_restart_of=after),
        )


class DynamoTrtllm(_Pushing):
    """`dynamo.trtllm` workers. KV goes through TensorRT-LLM's cache transceiver, with NIXL below it."""

    name = "dynamo-trtllm"
    together: Mapping[str, Mapping[str, str]] = {"1.6": {"trtllm": "1.3.0rc29"}}
    must_agree: Mapping[str, str] = {"kv-block-size": "32"}
    owned_flags: Mapping[str, str] = {
        **OWNED_FLAGS,
        **MODEL_FLAGS,
        "tensor-parallel-size": "use `roles.<role>.tp`",
        "pipeline-parallel-size": "use `roles.<role>.pp`",
        "publish-kv-events": "use `frontend.routing: kv`",
        "override-engine-args": "write the engine's settings as `trtllm.GROUP.KEY: value`",
    }

    def packages(self, topology: Topology) -> tuple[str, ...]:
        """Dynamo and TensorRT-LLM, which brings NIXL in its own libraries."""
        return ("dynamo", "trtllm")

    def port_needs(self, topology: Topology, role: Role) -> dict[str, int]:
        """Dynamo's own: the transceiver's ports are the kernel's to choose."""
        return {"system": 1, "rpc": 1}

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        """A worker. Its KV events go over Dynamo's event plane."""
        spec = role_spec(topology, seat.role)
        if spec.dp > 1:
            raise UsageError(
                "dynamo.trtllm has no data-parallel ranks of their own",
                where=topology.where("roles", seat.role, "dp"),
                fix="leave `dp` out; `args: {enable-attention-dp: true}` spreads attention over the ranks of `tp`",
            )
        worker = worker_process(
            topology, seat, context, ("-m", "dynamo.trtllm", *_trtllm(topology, spec, seat, context))
        )
        backend = {"TRTLLM_NIXL_KVCACHE_BACKEND": topology.transport.backend.upper()} if seat.role != "worker" else {}
        return msgspec.structs.replace(
            worker,
            env={**_environment(topology, seat, context), **backend, **worker.env},
            log_phases=(LogPhase(r"(?i)loading weights|load_weights", "loading weights"), *worker.log_phases),
            log_causes=(OUT_OF_MEMORY, *worker.log_causes),
            ucx=seat.role != "worker",
        )


def _sglang(topology: Topology, spec: RoleSpec, seat: Seat, context: EngineContext) -> Iterator[str]:
    yield from ("--model-path", context.model, "--served-model-name", topology.served_name)
    yield from ("--host", seat.address, "--port", str(seat.ports["port"]), "--enable-metrics")
    for flag, size in (("tp", spec.tp), ("pp", spec.pp), ("dp", spec.dp)):
        if size > 1:
            yield from (f"--{flag}-size", str(size))
    if seat.role != "worker":
        yield from ("--disaggregation-mode", MODES[seat.role], "--disaggregation-transfer-backend", "nixl")
    if "bootstrap" in seat.ports:
        yield from ("--disaggregation-bootstrap-port", str(seat.ports["bootstrap"]))
    if "kv_events" in seat.ports:
        events = {"publisher": "zmq", "topic": "kv-events", "endpoint": f"tcp://*:{seat.ports['kv_events']}"}
        yield from ("--kv-events-config", msgspec.json.encode(events).decode())
    for key, value in spec.args.items():
        yield from render(flag_name(key), value)


def _trtllm(topology: Topology, spec: RoleSpec, seat: Seat, context: EngineContext) -> Iterator[str]:
    yield from ("--model", context.model, "--served-model-name", topology.served_name)
    yield from ("--disaggregation-mode", MODES[seat.role], "--publish-metrics")
    for flag, size in (("tensor", spec.tp), ("pipeline", spec.pp)):
        if size > 1:
            yield from (f"--{flag}-parallel-size", str(size))
    if sends_events(topology, seat.role):
        yield "--publish-kv-events"
    given = {flag_name(key) for key in spec.args}
    if seat.role != "worker" and "trtllm.cache_transceiver_config.backend" not in given:
        yield from ("--trtllm.cache_transceiver_config.backend", "NIXL")
    if seat.role == "prefill" and "trtllm.disable_overlap_scheduler" not in given:
        yield from ("--trtllm.disable_overlap_scheduler", "true")  # a context server has no step to overlap with
    for key, value in spec.args.items():
        yield from render(flag_name(key), value)


def _environment(topology: Topology, seat: Seat, context: EngineContext) -> dict[str, str]:
    """Its GPUs, and for a pair's ends UCX: what it says, and which devices it may use."""
    gpus = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(seat.gpu_uuids)}
    env = gpus if seat.gpu_uuids else {}
    if seat.role == "worker":
        return env
    ports = dict.fromkeys(f"{rail.nic}:{rail.port}" for rail in seat.rails)
    devices = ["lo"] if context.loopback_only else [*ports, "lo"] if ports else []
    chosen = {"UCX_NET_DEVICES": ",".join(devices)} if devices else {}
    return {**env, **ucx_environment(context), **chosen, **topology.transport.env}
