"""Topology, hardware and facts in, Plan out. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from dynctl import __version__
from dynctl.engines import vllm_router
from dynctl.engines.base import (
    EngineAdapter,
    EngineContext,
    ServiceContext,
    adapter,
    in_its_direction,
    refuse_disagreement,
    refuse_owned_flags,
)
from dynctl.engines.dynamo_planes import namespace
from dynctl.engines.spec import LogPhase, Probes, ProcessSpec, Seat
from dynctl.environ import SOCKETS_VARIABLE
from dynctl.errors import UsageError
from dynctl.hardware.values import parse_cpu_list
from dynctl.plan.facts import Facts
from dynctl.plan.installed import refuse_incomplete_engine
from dynctl.plan.kv import kv_shape
from dynctl.plan.machine import LOCAL, Machine, agreed, digest, machines, refuse_taken
from dynctl.plan.placement import place, roles
from dynctl.plan.transport import plan_transport
from dynctl.plan.values import HealthRules, KvShape, Plan, PlannedPair, PlannedTransport, ReadyRules, Slo
from dynctl.topology.schema import Frontend, Topology

TINY = "builtin:tiny"
DRAIN_S = 86_400
"""How long the frontend itself would drain: longer than anybody waits, as the deadline of `down` is the one to keep."""


def resolve(
    topology: Topology, facts: Facts, *, verify: bool | None = None, kept: Mapping[str, ProcessSpec] | None = None
) -> Plan:
    """The whole run. Raises UsageError, HostError or TransportError for what can't be planned.

    `kept`: workers that run already, by id, and stay where they are.
    """
    engine = adapter(topology)
    topology = in_its_direction(topology, engine)
    refuse_owned_flags(topology, engine)
    refuse_disagreement(topology, engine)
    facts = _without_gpus(topology, facts) if engine.simulated else facts
    refuse_incomplete_engine(engine, topology, facts.engine)
    _refuse_taken_frontend_port(topology, facts)
    _refuse_events_across_nodes(topology)
    over = machines(topology, facts)
    service = _service(topology, facts, engine, over[facts.node], kept or {})
    needs = {role: engine.port_needs(topology, role) for role, _ in roles(topology)}
    seats = place(topology, over, needs, kept)
    if topology.nodes:
        _refuse_taken_ports(over[facts.node], facts, seats)
    hardware = {name: machine.hardware for name, machine in over.items()}
    transport = plan_transport(topology, hardware, seats, facts.hardware)
    workers = _workers(topology, facts, engine, seats, transport, service)
    parts = agreed(topology, facts, __version__) if topology.nodes else {}
    exact = topology.model == TINY and not engine.simulated
    services = engine.services(topology, service) or (_frontend(topology, facts, service, workers),)
    return Plan(
        name=topology.name,
        served_name=topology.served_name,
        model=facts.model.model,
        engine=topology.engine,
        run_dir=facts.run_dir,
        frontend_url=_url(topology),
        frontend_cert=topology.frontend.tls.cert if topology.frontend.tls else None,
        frontend_keys=topology.frontend.api_keys_file,
        processes=(*workers, *services),
        transport=transport,
        kv=_kv(topology, facts, engine),
        health=HealthRules(canary_s=topology.health.canary_s, stall_s=topology.health.stall_s),
        ready=ReadyRules(timeout_s=topology.ready.timeout_s, stall_s=topology.ready.stall_s),
        slo=Slo(ttft_ms=topology.slo.ttft_ms, itl_ms=topology.slo.itl_ms) if topology.slo else Slo(),
        verify=_verifies(topology, engine, exact, verify),
        exact=exact,
        warnings=_warnings(topology, facts, transport, engine),
        node=facts.node,
        nodes=tuple(machine.node() for machine in over.values()) if topology.nodes else (),
        agreed=parts,
        digest=digest(parts) if parts else "",
        rdma=facts.hardware.has_rdma(),
        router=topology.router,
        simulated=engine.simulated,
    )


def _without_gpus(topology: Topology, facts: Facts) -> Facts:
    """Simulated workers take none, and no KV of theirs goes over any path."""
    if topology.transport.require != "auto":
        raise UsageError(
            f"`{topology.engine}` moves no KV: no path can be required of it",
            where=topology.where("transport", "require"),
            fix="leave `require` out",
        )
    return msgspec.structs.replace(facts, hardware=msgspec.structs.replace(facts.hardware, gpus=()))


def _verifies(topology: Topology, engine: EngineAdapter, exact: bool, asked: bool | None) -> bool:
    """Whether tokens through prefill and decode are held against those of decode alone."""
    if topology.router == "dynamo":
        if asked:
            raise UsageError(
                "--verify compares with decode alone, which the frontend of dynamo can't be asked for",
                fix="leave --verify out",
            )
        return False
    return topology.disaggregated and (exact if asked is None else asked)


def _service(
    topology: Topology, facts: Facts, engine: EngineAdapter, machine: Machine, kept: Mapping[str, ProcessSpec]
) -> ServiceContext:
    """What the services are given. Those that run already keep their ports."""
    needs = engine.service_ports(topology)
    if topology.router == "vllm-router":
        needs = {**needs, vllm_router.FRONTEND: dict(vllm_router.PORTS)}
    ports = {
        name: kept[name].ports if name in kept else {port: machine.ports.take(count) for port, count in wants.items()}
        for name, wants in needs.items()
    }
    return ServiceContext(
        python=facts.engine.python,
        run_dir=facts.run_dir,
        namespace=namespace(topology, facts.run_dir),
        url=_url(topology),
        ports=ports,
    )


def _refuse_taken_ports(machine: Machine, facts: Facts, seats: tuple[Seat, ...]) -> None:
    planned = {
        port: f"process {seat.id}" for seat in seats if seat.node == machine.name for port in seat.ports.values()
    }
    refuse_taken(machine, facts.taken_ports, planned)


def _workers(
    topology: Topology,
    facts: Facts,
    engine: EngineAdapter,
    seats: tuple[Seat, ...],
    transport: PlannedTransport,
    service: ServiceContext,
) -> tuple[ProcessSpec, ...]:
    """Workers on one GPU start one after the other, as each looks at how much of its memory is free."""
    own: dict[str, list[PlannedPair]] = defaultdict(list)
    for pair in transport.pairs:
        own[pair.from_].append(pair)
        own[pair.to].append(pair)
    before: dict[tuple[str, str], str] = {}
    beside = Counter(seat.node for seat in seats)
    made = []
    for seat in seats:
        pairs = own[seat.leader or seat.id]
        context = _context(topology, facts, seat, beside[seat.node], pairs)
        process = engine.process(topology, seat, msgspec.structs.replace(context, service=service))
        devices = [(seat.node, device) for device in seat.gpu_uuids]
        after = tuple(dict.fromkeys(before[device] for device in devices if device in before))
        made.append(msgspec.structs.replace(process, after=after) if after else process)
        before |= dict.fromkeys(devices, seat.id)
    return tuple(made)


def _context(topology: Topology, facts: Facts, seat: Seat, seats: int, own: Sequence[PlannedPair]) -> EngineContext:
    pinned = topology.role(seat.role).pin
    wants_nics = bool(pinned and pinned[seat.index].nics)
    hardware = facts.hardware if seat.node == facts.node else facts.elsewhere.get(seat.node, facts.hardware)
    return EngineContext(
        python=facts.engine.python,
        model=facts.model.model,
        on_gpu=hardware.has_gpu(),
        cores=len(parse_cpu_list(seat.cpus)) if seat.cpus else max(1, (len(hardware.cores) - 2) // seats),
        loopback_only=not wants_nics and not any(pair.path == "rdma" or pair.across for pair in own),
        netdev=facts.netdev if seat.node == facts.node and (seat.span > 1 or any(p.across for p in own)) else None,
        emulation_off=bool(own) and all(pair.floor != "tcp" for pair in own),
    )


def _frontend(topology: Topology, facts: Facts, service: ServiceContext, workers: Sequence[ProcessSpec]) -> ProcessSpec:
    if topology.router == "vllm-router":
        return vllm_router.frontend(topology, service, facts.router or "vllm-router", workers)
    front = topology.frontend
    argv = [*facts.dynctl, "frontend", "--host", front.host, "--port", str(front.port), "--control", facts.socket]
    argv += ["--drain-timeout", str(DRAIN_S)]
    if front.routing != "round-robin":
        argv += ["--routing", front.routing]
    if front.resume:
        argv.append("--resume")
    if front.workers > 1:
        argv += ["--workers", str(front.workers)]
    argv += _limits(front)
    if front.api_keys_file:
        argv += ["--api-keys-file", str(front.api_keys_file)]
    if front.allow_public:
        argv.append("--allow-public")
    for origin in front.cors_origins:
        argv += ["--cors-origin", origin]
    if front.access_log:
        argv += ["--access-log", front.access_log]
    if front.tls:
        argv += ["--tls-cert", front.tls.cert, "--tls-key", front.tls.key]
    return ProcessSpec(
        id="frontend",
        role="frontend",
        node=topology.frontend_node or LOCAL,
        argv=tuple(argv),
        env={"DYNCTL_TOKEN_FILE": f"{facts.run_dir}/token"},
        ports={"http": front.port},
        # /health is 503 until a decode is ready; that the frontend itself is up shows in /metrics
        probes=Probes(url=_url(topology), health="/metrics", models=None),
        log_phases=(LogPhase(r"frontend listening", "serving"),),
        stop_grace_s=30.0,
        sockets_variable=SOCKETS_VARIABLE if front.routing == "kv-aware" else None,
    )


def _limits(front: Frontend) -> Iterator[str]:
    """What the topology says of deadlines and retries; the rest is the frontend's own default."""
    for key in ("prefill", "first", "whole", "stall"):
        if f"{key}_s" in front.timeouts.model_fields_set:
            yield from (f"--{key}-timeout", str(getattr(front.timeouts, f"{key}_s")))
    if front.admission is not None:
        yield from ("--max-running", str(front.admission.running), "--max-waiting", str(front.admission.queue))
        yield from ("--longest-wait", str(front.admission.wait_s))
    if front.decode_alone is not None:
        yield from ("--decode-alone", str(front.decode_alone))
    for key in ("ratio", "burst"):
        if key in front.retries.model_fields_set:
            yield from (f"--retry-{key}", str(getattr(front.retries, key)))


def _url(topology: Topology) -> str:
    host = topology.frontend.host
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{'https' if topology.frontend.tls else 'http'}://{reachable}:{topology.frontend.port}"


def _kv(topology: Topology, facts: Facts, engine: EngineAdapter) -> KvShape:
    if not topology.disaggregated or not engine.counts_kv:
        return KvShape(counted=engine.counts_kv)
    on_gpu = facts.hardware.has_gpu()
    dtype, cache_dtype = engine.value_type(topology, "decode", on_gpu=on_gpu)
    block_tokens = engine.block_tokens(topology, "decode", on_gpu=on_gpu)
    tp = topology.role("decode").tp
    return kv_shape(facts.model.config, dtype=dtype, cache_dtype=cache_dtype, block_tokens=block_tokens, tp=tp)


def _refuse_events_across_nodes(topology: Topology) -> None:
    if topology.frontend.routing == "kv-aware" and len(topology.nodes) > 1:
        raise UsageError(
            "kv-aware routing serves one node only",
            where=topology.where("frontend", "routing"),
            why="engines tell of their caches over unix sockets",
            fix="write `routing: cache-aware`, which needs nothing from the engines",
        )


def _refuse_taken_frontend_port(topology: Topology, facts: Facts) -> None:
    holder = facts.taken_ports.get(topology.frontend.port)
    if holder and topology.frontend_node in (None, facts.node):
        raise UsageError(
            f"port {topology.frontend.port} is in use",
            where=topology.where("frontend", "port"),
            why=f"held by {holder}",
            fix=f"end it, or choose another: `--set frontend.port={topology.frontend.port % 65535 + 1}`",
        )


def _warnings(topology: Topology, facts: Facts, transport: PlannedTransport, engine: EngineAdapter) -> tuple[str, ...]:
    found = [
        f"{name} in the environment is not passed on to workers; transport.env is the place for it"
        for name in facts.ambient
    ]
    found += facts.notes
    slow = [pair for pair in transport.pairs if pair.path == "tcp"]
    if slow and facts.hardware.has_gpu() and topology.transport.direction == "pull":
        more = f" (and {len(slow) - 1} more pairs)" if len(slow) > 1 else ""
        found.append(
            f"{slow[0].from_} -> {slow[0].to}{more}: {slow[0].reason}; a pulled KV cache falls to TCP here, "
            "`transport: {direction: push}` avoids that"
        )
    by_cache = topology.frontend.routing in ("kv", "kv-aware", "cache-aware")
    if topology.router == "dynamo" and (topology.control.event == "zmq" or by_cache):
        found.append(
            "Dynamo's events go over ZMQ sockets that listen on all addresses of this host, whatever they are told: "
            "keep their ports from others by a firewall"
        )
    if not facts.hardware.has_gpu() and any(spec.share is not None for _, spec in roles(topology)):
        found.append("this machine has no GPU: `share` has no effect")
    if not facts.hardware.has_gpu() and max(spec.gpus_per_worker for _, spec in roles(topology)) > 1:
        found.append("this machine has no GPU: tp, pp and dp start several CPU workers")
    return tuple(found)
