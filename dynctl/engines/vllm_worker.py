"""What every worker of vLLM is told, in plain vLLM's own server or in another's: flags and environment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import msgspec

from dynctl.engines.base import EngineContext, flag_name
from dynctl.engines.spec import EPOCH, Role, Seat
from dynctl.topology.schema import RoleSpec, Topology

KV_ROLES: Mapping[str, str] = {"prefill": "kv_producer", "decode": "kv_consumer"}
CONNECTORS: Mapping[str, str] = {"pull": "NixlConnector", "push": "NixlPushConnector"}


def worker_arguments(topology: Topology, spec: RoleSpec, seat: Seat, context: EngineContext) -> Iterator[str]:
    """The flags that a worker of vLLM has, whoever's server it is in."""
    for flag, size in (("tensor", spec.tp), ("pipeline", spec.pp), ("data", spec.dp)):
        if size > 1:
            yield from (f"--{flag}-parallel-size", str(size))
    if seat.role != "worker":
        yield from ("--kv-transfer-config", _kv_transfer_config(topology, seat, context))
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
        yield from render(flag_name(key), value)


def render(flag: str, value: object) -> Iterator[str]:
    """A flag of `args` as it is written in argv."""
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


def worker_environment(topology: Topology, spec: RoleSpec, seat: Seat, context: EngineContext) -> dict[str, str]:
    """Its environment: sockets on its own address, devices, cores, the KV path, and what the file says."""
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
    """Side channel, UCX's devices, and what UCX is told for any engine."""
    env = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": seat.address,
        **({"VLLM_NIXL_SIDE_CHANNEL_PORT": str(port)} if (port := seat.ports.get("side_channel")) else {}),
        **ucx_environment(context),
    }
    said = {**topology.transport.env, **role_spec(topology, seat.role).env}
    devices = {} if "UCX_NET_DEVICES" in said else _net_devices(seat, context)
    return {**env, **devices, **topology.transport.env}


def ucx_environment(context: EngineContext) -> dict[str, str]:
    """UCX told to say which protocol it chose.

    UCX's own log files are block-buffered by stdio and show the choice long after it was made; its stderr is not
    buffered, so the lines go there and the supervisor parts them from the engine's.
    """
    env = {"UCX_LOG_LEVEL": "info", "UCX_LOG_FILE": "stderr", "UCX_PROTO_INFO": "*remote memory*"}
    return {**env, **({"UCX_PROTO_EMULATION_ENABLE": "n"} if context.emulation_off else {})}


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


def role_spec(topology: Topology, role: Role) -> RoleSpec:
    """The role's section."""
    spec = getattr(topology.roles, role)
    assert isinstance(spec, RoleSpec)  # noqa: S101 - seats exist only for roles the topology has
    return spec


def argument(spec: RoleSpec, flag: str) -> object:
    """What `args` give a flag; None where they don't."""
    return next((value for key, value in spec.args.items() if flag_name(key) == flag), None)
