"""Dynamo's workers of SGLang and TensorRT-LLM as data: no machine here can run them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dynctl.errors import HostError, UsageError
from dynctl.plan.facts import EngineFacts
from dynctl.plan.values import Plan
from tests.unit.plan.machines import CPU_1P1D, gpus, made

VERSIONS = {"dynamo": "1.6.1", "nixl": "1.5.0", "sglang": "0.5.21", "trtllm": "1.3.0rc29"}
SGLANG, TRTLLM = "engine=dynamo-sglang", "engine=dynamo-trtllm"


def planned(*sets: str, text: str = CPU_1P1D, **versions: Any) -> Plan:
    return made(text, *sets, engine=EngineFacts(python="/py", **{**VERSIONS, **versions}), on=gpus(8))


def words(plan: Plan, process: str) -> str:
    """Its argv after `-m`, with the names of its ports and M for the model."""
    spec = plan.process(process)
    named = {str(port): f"<{name}>" for name, port in spec.ports.items()} | {plan.model: "M", plan.served_name: "S"}
    return " ".join(named.get(word, word) for word in spec.argv[2:])


def test_a_pair_of_sglang() -> None:
    plan = planned(SGLANG, "roles.prefill.tp=2", "roles.decode.args.mem-fraction-static=0.8")
    common = "dynamo.sglang --model-path M --served-model-name S --host 127.0.0.1 --port <port> --enable-metrics"
    assert words(plan, "prefill-0") == (
        f"{common} --tp-size 2 --disaggregation-mode prefill --disaggregation-transfer-backend nixl "
        "--disaggregation-bootstrap-port <bootstrap>"
    )
    assert words(plan, "decode-0") == (
        f"{common} --disaggregation-mode decode --disaggregation-transfer-backend nixl --mem-fraction-static 0.8"
    )
    prefill, decode = plan.process("prefill-0"), plan.process("decode-0")
    assert (decode.restart.after_restart_of, prefill.restart.after_restart_of) == ("prefill", None)
    assert prefill.env["CUDA_VISIBLE_DEVICES"] == ",".join(prefill.gpu_uuids)
    assert prefill.env["SGLANG_HOST_IP"] == "127.0.0.1"
    assert prefill.env["SGLANG_DISAGGREGATION_NIXL_BACKEND"] == "UCX"


def test_each_prefill_of_sglang_has_a_bootstrap_port_of_its_own() -> None:
    plan = planned(SGLANG, "roles.prefill.workers=3")
    ports = [port for process in plan.processes for port in process.ports.values()]
    assert len(set(ports)) == len(ports)
    assert len({plan.process(f"prefill-{number}").ports["bootstrap"] for number in range(3)}) == 3
    assert all(process.ports.get("system", 0) <= 32767 for process in plan.processes)


def test_a_pair_of_tensorrt_llm() -> None:
    plan = planned(TRTLLM, "roles.prefill.tp=2", "frontend.routing=kv")
    assert words(plan, "prefill-0") == (
        "dynamo.trtllm --model M --served-model-name S --disaggregation-mode prefill --publish-metrics "
        "--tensor-parallel-size 2 --publish-kv-events "
        "--trtllm.cache_transceiver_config.backend NIXL --trtllm.disable_overlap_scheduler true"
    )
    assert words(plan, "decode-0") == (
        "dynamo.trtllm --model M --served-model-name S --disaggregation-mode decode --publish-metrics "
        "--trtllm.cache_transceiver_config.backend NIXL"
    )
    assert plan.process("decode-0").env["TRTLLM_NIXL_KVCACHE_BACKEND"] == "UCX"


@pytest.mark.parametrize("engine", [SGLANG, TRTLLM])
def test_prefill_pushes_and_bytes_are_not_asked_for(engine: str) -> None:
    plan = planned(engine)
    assert plan.transport.direction == "push"
    assert not plan.kv.counted
    with pytest.raises(UsageError, match="push KV"):
        planned(engine, "transport.direction=pull")


def test_the_router_gets_kv_events_of_sglang() -> None:
    argv = planned(SGLANG, "frontend.routing=kv").process("prefill-0").argv
    assert json.loads(argv[argv.index("--kv-events-config") + 1])["publisher"] == "zmq"


@pytest.mark.parametrize("engine", [SGLANG, TRTLLM])
def test_aggregated_workers_hand_nothing_over(engine: str) -> None:
    plan = planned(engine, text=CPU_1P1D.split("roles:")[0] + "roles: {worker: {workers: 1}}")
    assert "bootstrap" not in words(plan, "worker-0")
    assert "transceiver" not in words(plan, "worker-0")
    assert "UCX_LOG_LEVEL" not in plan.process("worker-0").env


@pytest.mark.parametrize(
    ("engine", "change"),
    [
        (SGLANG, "roles.prefill.args.disaggregation-bootstrap-port=8998"),
        (SGLANG, "roles.prefill.args.tp-size=2"),
        (SGLANG, "roles.prefill.args.page-size=16"),
        (TRTLLM, "roles.decode.args.tensor-parallel-size=2"),
        (TRTLLM, "roles.decode.dp=2"),
    ],
)
def test_what_dynctl_sets_and_what_can_not_agree_is_refused(engine: str, change: str) -> None:
    with pytest.raises(UsageError):
        planned(engine, change)


@pytest.mark.parametrize(
    ("engine", "other", "what"),
    [
        (SGLANG, {"sglang": "0.5.20"}, "sglang 0.5.20 does not go with dynamo 1.6.1"),
        (SGLANG, {"sglang": None}, "no sglang"),
        (TRTLLM, {"trtllm": None}, "no trtllm"),
    ],
)
def test_versions_that_do_not_go_together_are_refused(engine: str, other: dict[str, Any], what: str) -> None:
    with pytest.raises(HostError, match=what):
        planned(engine, **other)
