"""Dynamo's planes: where its processes find each other, and etcd and NATS where the run has its own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from dynctl.engines.base import ServiceContext
from dynctl.engines.spec import Probes, ProcessSpec, Restart
from dynctl.topology.schema import Topology

ETCD, NATS = "etcd", "nats"
DISCOVERY = "dynamo/discovery"
"""In the run's directory: registrations, where discovery is by files."""
TRACE = "dynamo/requests.jsonl"
"""In the run's directory: what Dynamo's frontend writes of each request that ended."""
LEASES = "dynamo/leases"
"""In the run's directory: the leases of its workers, by which what they have registered is known for theirs."""
OF_ONE_RUN = ("dynamo", "etcd", "nats")
"""In the run's directory: what the next run of that name must not find."""
HOST = "127.0.0.1"


def namespace(topology: Topology, run_dir: str) -> str:
    """Dynamo's namespace: the one the file names, or one that no other run has, wherever it runs."""
    return topology.control.namespace or own_namespace(topology.name, run_dir)


def own_namespace(name: str, run_dir: str) -> str:
    """The namespace of that run alone."""
    return f"{name}-{zlib.crc32(run_dir.encode()):08x}"


def needed(topology: Topology) -> dict[str, dict[str, int]]:
    """The services that the run starts itself, each with its ports."""
    control = topology.control
    found: dict[str, dict[str, int]] = {}
    if control.discovery == "etcd" and not control.etcd:
        found[ETCD] = {"client": 1, "peer": 1}
    if control.uses_nats and not control.nats:
        found[NATS] = {"client": 1, "monitor": 1}
    return found


def planes(topology: Topology, context: ServiceContext) -> dict[str, str]:
    """The environment of every process of Dynamo: its planes, all of it on loopback."""
    control = topology.control
    env = {
        "DYN_NAMESPACE": context.namespace,
        "DYN_DISCOVERY_BACKEND": control.discovery,
        "DYN_REQUEST_PLANE": control.request,
        "DYN_RESPONSE_PLANE": "tcp",
        "DYN_EVENT_PLANE": control.event,
        "DYN_TCP_RPC_HOST": HOST,
        "DYN_TCP_RESPONSE_STREAM_HOST": HOST,
        "DYN_EVENT_PLANE_HOST": HOST,
        "DYN_SYSTEM_HOST": HOST,
        "DYN_SDK_DISABLE_ANSI_LOGGING": "1",
    }
    if control.discovery == "file":
        env["DYN_FILE_KV"] = f"{context.run_dir}/{DISCOVERY}"
    else:
        env["ETCD_ENDPOINTS"] = ",".join(control.etcd or (_url("http", context.ports[ETCD]),))
    if control.uses_nats:
        env["NATS_SERVER"] = control.nats or _url("nats", context.ports[NATS])
    return env


def etcd(context: ServiceContext) -> ProcessSpec:
    """An etcd of the run's own, of one member, with its data in the run's directory."""
    ports = context.ports[ETCD]
    client, peer = _url("http", ports), f"http://{HOST}:{ports['peer']}"
    return ProcessSpec(
        id=ETCD,
        role="control",
        argv=(
            *("etcd", "--name", "default", "--data-dir", f"{context.run_dir}/etcd"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}", "--log-level", "warn"),
        ),
        ports=ports,
        probes=Probes(url=client, health="/health", models=None, metrics=None),
        restart=Restart(max=10, backoff_s=0.2, cap_s=10.0),
        stop_grace_s=5.0,
    )


def nats(context: ServiceContext) -> ProcessSpec:
    """A NATS server of the run's own, with JetStream's data in the run's directory."""
    ports = context.ports[NATS]
    monitor = f"http://{HOST}:{ports['monitor']}"
    return ProcessSpec(
        id=NATS,
        role="control",
        argv=(
            *("nats-server", "--addr", HOST, "--port", str(ports["client"])),
            *("--http_port", str(ports["monitor"]), "--jetstream", "--store_dir", f"{context.run_dir}/nats"),
        ),
        ports=ports,
        probes=Probes(url=monitor, health="/healthz", models=None, metrics=None),
        restart=Restart(max=10, backoff_s=0.2, cap_s=10.0),
        stop_grace_s=5.0,
    )


def _url(scheme: str, ports: Mapping[str, int]) -> str:
    return f"{scheme}://{HOST}:{ports['client']}"
