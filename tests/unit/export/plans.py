"""Plans to write scripts and units from."""

from __future__ import annotations

from dynctl.engines.spec import Probes, ProcessSpec
from dynctl.engines.vllm import GUARD
from dynctl.plan.redact import HIDDEN
from dynctl.plan.values import Plan, PlannedNode, PlannedTransport


def worker(name: str, role: str, port: int, **more: object) -> ProcessSpec:
    """A worker with everything that a script has to carry over, awkward characters among it."""
    fields = {
        "argv": ("/opt/e/bin/python", "-m", "e", "--json", '{"a": "b c", "d": "$HOME `x` 100% \\\\"}', "it's"),
        "env": {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b", "ODD": 'a\'b "c" $d %h', "HF_TOKEN": HIDDEN},
        "gpus": (2, 3),
        "cpus": "0-3,8",
        "memory_nodes": (1,),
        "probes": Probes(url=f"http://127.0.0.1:{port}"),
        "sockets_variable": "VLLM_RPC_BASE_PATH",
        **more,
    }
    return ProcessSpec(id=name, role=role, **fields)  # type: ignore[arg-type]


FRONTEND = ProcessSpec(
    id="frontend",
    role="frontend",
    argv=("/opt/d/python", "-m", "dynctl", "frontend", "--port", "8000", "--control", "/s", "--drain-timeout", "86400"),
    env={"DYNCTL_TOKEN_FILE": "/r/token"},
    stop_grace_s=30.0,
)


def plan(*processes: ProcessSpec, **more: object) -> Plan:
    """Two workers and the frontend, unless others are given."""
    usual = (worker("prefill-0", "prefill", 1), worker("decode-0", "decode", 2), FRONTEND)
    fields = {
        "name": "p",
        "served_name": "m",
        "model": "m",
        "engine": "vllm",
        "run_dir": "/r",
        "frontend_url": "http://127.0.0.1:8000",
        "processes": processes or usual,
        "transport": PlannedTransport(required="auto"),
        **more,
    }
    return Plan(**fields)  # type: ignore[arg-type]


def two_nodes(node: str = "a") -> Plan:
    """Prefill on a, a decode worker over both, the frontend on a."""
    guard = ("/opt/e/bin/python", "--middleware", GUARD, '{"engine_id":"decode-0.{epoch}"}')
    part = worker("decode-0.1", "decode", 3, node="b", argv=guard, leader="decode-0", probes=Probes(health=None))
    return plan(
        worker("prefill-0", "prefill", 1, node="b", argv=guard),
        worker("decode-0", "decode", 2, node="a", argv=guard),
        part,
        ProcessSpec(id="frontend", role="frontend", node="a", argv=FRONTEND.argv, env=FRONTEND.env),
        node=node,
        nodes=(
            PlannedNode(name="a", address="10.0.0.1", control_port=1),
            PlannedNode(name="b", address="10.0.0.2", control_port=1),
        ),
    )


PLANS = {
    "one node": plan(),
    "aggregated": plan(worker("worker-0", "worker", 1), FRONTEND),
    "one after the other": plan(
        worker("prefill-0", "prefill", 1), worker("decode-0", "decode", 2, after=("prefill-0",)), FRONTEND
    ),
    "node a": two_nodes("a"),
    "node b": two_nodes("b"),
}
