"""Runs as the view may meet them. All figures are invented."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from msgspec.structs import replace

from dynctl.frontend.messages import RequestRecord
from dynctl.store.event import Event
from dynctl.telemetry.status import (
    Bound,
    Evidence,
    FrontendStatus,
    NodeStatus,
    PairStatus,
    ProcessStatus,
    RunStatus,
    SupervisorStatus,
    TransportStatus,
    TtftStatus,
    VerifyStatus,
)

NOW = time.mktime((2026, 11, 23, 17, 3, 12, 0, 0, -1))
MIB = 1 << 20
CMA = Evidence(
    kind="planned",
    source="decode-0.log",
    line="intra-node cfg#1 | remote memory read by ucp_get*(multi) into host memory from host"
    " | 0..inf | zero-copy | cma/memory",
)
RDMA = Evidence(
    kind="used",
    source="decode-0.log",
    line="inter-node cfg#3 | remote memory read by ucp_get*(multi) into cuda/GPU0 from cuda"
    " | 256K..inf | zero-copy | 50% on rc_mlx5/mlx5_0:1 and 50% on rc_mlx5/mlx5_1:1 | 12 uses",
)


def cpu_processes(**changes: Any) -> tuple[ProcessStatus, ...]:
    common: dict[str, Any] = {"state": "ready", "since": NOW - 192, **changes}
    return (
        ProcessStatus(id="prefill-0", role="prefill", pid=20310, cpus="0", ports={"http": 20001, "side_channel": 20002},
                      rss_bytes=812 * MIB, **common),
        ProcessStatus(id="decode-0", role="decode", pid=20311, cpus="1", ports={"http": 20003, "side_channel": 20004},
                      rss_bytes=830 * MIB, **common),
        ProcessStatus(id="frontend", role="frontend", pid=20312, ports={"http": 8000}, rss_bytes=41 * MIB, **common),
    )  # fmt: skip


PROVEN = PairStatus(
    from_="prefill-0", to="decode-0", verdict="shm", bytes=1572864, gigabytes_per_s=0.42, evidence=(CMA,)
)


def ready(**changes: Any) -> RunStatus:
    """A CPU run that serves."""
    fields: dict[str, Any] = {
        "name": "cpu-1p1d",
        "state": "ready",
        "started_at": NOW - 204,
        "served_name": "tiny",
        "supervisor": SupervisorStatus(pid=20299),
        "frontend": FrontendStatus(
            url="http://127.0.0.1:8000",
            health="ok",
            requests_per_s=2.13,
            in_flight=3,
            requests_total=1204,
            errors_total=0,
        ),
        "processes": cpu_processes(),
        "transport": TransportStatus(
            required="auto", verdict="shm", gigabytes_per_s=0.42, evidence=(CMA,), pairs=(PROVEN,)
        ),
        "ttft_ms": TtftStatus(
            p50=62.4,
            p99=118.0,
            requests=128,
            split={"queue": 0.2, "prefill": 31.0, "handover": 31.2},
            window={
                "prefill_queue": 1.4,
                "prefill_compute": 27.6,
                "transfer": 6.4,
                "first_decode": 18.9,
                "unattributed": -1.2,
                "gigabytes_per_s": 0.42,
            },
        ),
        "verify": VerifyStatus(state="passed", prompts=4, tokens=64),
        "slo_ms": {"ttft_ms": 300.0, "itl_ms": 10.0},
    }
    return RunStatus(**{**fields, **changes})


def starting() -> RunStatus:
    one, two, front = cpu_processes()
    loading = {"state": "loading", "phase": "loading weights", "phase_since": NOW - 12, "since": NOW - 31}
    return ready(
        state="starting",
        started_at=NOW - 31,
        processes=(
            msgspec.structs.replace(one, **loading),
            msgspec.structs.replace(two, **{**loading, "phase": "compiling graphs", "phase_since": NOW - 3}),
            msgspec.structs.replace(front, state="pending", pid=None, rss_bytes=None, since=None),
        ),
        transport=TransportStatus(required="auto", pairs=(PairStatus(from_="prefill-0", to="decode-0"),)),
        frontend=FrontendStatus(url="http://127.0.0.1:8000"),
        ttft_ms=TtftStatus(),
        verify=VerifyStatus(state="pending"),
    )


def degraded() -> RunStatus:
    one, two, front = cpu_processes()
    gone = msgspec.structs.replace(one, state="backing off", pid=None, rss_bytes=None, restarts=2, since=NOW - 4)
    reason = "no prefill worker is ready: decode serves alone"
    return ready(state="degraded", reason=reason, processes=(gone, two, front), warnings=("CMA is close to its limit",))


def big(pairs: int = 12) -> RunStatus:
    """Eight GPUs, RDMA, more pairs than fit."""
    processes = tuple(
        ProcessStatus(
            id=f"{role}-{i}",
            role=role,
            pid=4194300 - i,
            state="ready",
            since=NOW - 90000,
            gpus=(4 * k + i,),
            nics=(f"mlx5_{4 * k + i}",),
            numa=k,
            cpus=f"{56 * k + 14 * i}-{56 * k + 14 * i + 13}",
            ports={"http": 20000 + 10 * k + i},
            rss_bytes=int((12.34 + i) * (1 << 30)),
            restarts=int(i == 2),
        )
        for k, role in enumerate(("prefill", "decode"))
        for i in range(4)
    )
    made = tuple(
        PairStatus(
            from_=f"prefill-{i % 4}",
            to=f"decode-{i // 4}",
            verdict="tcp" if i == 7 else "rdma",
            bytes=(300 + i) * MIB,
            gigabytes_per_s=0.5 if i == 7 else 46.0 - i,
            evidence=() if i == 7 else (RDMA,),
        )
        for i in range(pairs)
    )
    return ready(
        name="qwen3-32b-4p4d",
        served_name="qwen3-32b",
        started_at=NOW - 90100,
        processes=processes,
        transport=TransportStatus(required="rdma", verdict="tcp", gigabytes_per_s=0.5, pairs=made),
    )


def bound() -> RunStatus:
    """Cores and memory looked at: in force, refused in part, and memory from another node than the cores'."""
    good, bad, far, *others = big().processes
    note = "2 of 318 threads of VLLM::Worker_TP (pid 41233) may run on cores 0-111, planned are 14-27"
    return replace(
        big(),
        processes=(
            replace(good, memory_nodes=(0,), bound=Bound(cpus="0-13", memory="prefer:0")),
            replace(bad, memory_nodes=(0,), bound=Bound(cpus="0-111", memory="prefer:0", ok=False, note=note)),
            replace(far, memory_nodes=(1,), bound=Bound(cpus="28-41", memory="prefer:1")),
            *others,
        ),
    )


def several(count: int = 3) -> RunStatus:
    """Prefill here, decode on a node that is lost, and others: one of them never met."""
    one, two, front = cpu_processes()
    why = "not heard for 72 s; nothing listens at 10.0.0.2:20001 (Connection refused)"
    nodes = (
        NodeStatus(name="a", address="10.0.0.1", state="degraded", age_s=0.0, heard="degraded", here=True),
        NodeStatus(name="b", address="10.0.0.2", state="lost", age_s=72.4, reason=why, heard="ready"),
        NodeStatus(name="c", address="10.0.0.3", reason="it has not called yet"),
        *(
            NodeStatus(name=f"n{i}", address=f"10.0.0.{i}", state="ready", age_s=0.4, heard="ready")
            for i in range(4, count + 1)
        ),
    )
    gone = replace(two, node="b", state="unhealthy", phase="node b is not heard for 72 s")
    return ready(
        state="degraded",
        reason="node b is not heard for 72 s, decode-0 is unhealthy",
        processes=(replace(one, node="a"), gone, replace(front, node="a")),
        nodes=nodes[:count],
    )


def events() -> list[Event]:
    told = [
        ("run.state", None, "starting", "starting", None),
        ("process.phase", "prefill-0", "loading weights", None, None),
        ("process.state", "prefill-0", "ready", "ready", None),
        ("process.state", "decode-0", "ready", "ready", None),
        ("pair", None, "prefill-0 → decode-0 proven: shm, 1.5 MiB at 0.42 GB/s", None, None),
        ("verify", None, "4 prompts, 64 tokens: the same", None, None),
        ("warning", None, "CMA is close to its limit", None, "ptrace_scope is 1"),
        ("run.state", None, "ready", "ready", None),
    ]
    return [
        Event(seq=i, at=NOW - 40 + 5 * i, kind=kind, process=process, message=message, state=state, why=why)  # type: ignore[arg-type]
        for i, (kind, process, message, state, why) in enumerate(told)
    ]


def request(**changes: Any) -> RequestRecord:
    fields: dict[str, Any] = {
        "id": "chatcmpl-9f3c2b7aa1d04e55",
        "at": NOW,
        "path": "/v1/chat/completions",
        "mode": "disaggregated",
        "status": 200,
        "streamed": True,
        "prefill": "prefill-0",
        "decode": "decode-0",
        "queue_ms": 0.0,
        "prefill_ms": 31.0,
        "handover_ms": 31.4,
        "ttft_ms": 62.4,
        "total_ms": 410.0,
    }
    return RequestRecord(**{**fields, **changes})
