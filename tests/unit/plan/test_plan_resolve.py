"""From topology, machine and facts to a plan: the whole of it, its errors, its warnings, its JSON."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dynctl.errors import HostError, UsageError
from dynctl.plan.values import KvShape, Plan, ReadyRules, Slo
from tests.unit.plan.machines import CPU_1P1D, ENGINE, TINY_CONFIG, TINY_DIR, cpu, gpus, made, pools

WORKER = ("/opt/engine/bin/python", "-m", "vllm.entrypoints.openai.api_server", "--model", TINY_DIR)
CONNECTOR = (
    '{"kv_connector":"NixlConnector","kv_role":"%s","kv_load_failure_policy":"fail","kv_buffer_device":"cpu",'
    '"kv_connector_extra_config":{"backends":["UCX"],"kv_lease_duration":30}}'
)
WORKER_ENV = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
    "UCX_LOG_LEVEL": "info",
    "UCX_LOG_FILE": "stderr",
    "UCX_PROTO_INFO": "*remote memory*",
    "UCX_NET_DEVICES": "lo",
    "UCX_PROTO_EMULATION_ENABLE": "n",
}
AGGREGATED = "schema: 1\nname: agg\nmodel: builtin:tiny\nroles:\n  worker:\n"


def worker_argv(port: int, kv_role: str) -> tuple[str, ...]:
    address = ("--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port))
    return (*WORKER, *address, "--kv-transfer-config", CONNECTOR % kv_role, "--dtype", "float32", "--enforce-eager")


def test_one_prefill_one_decode_on_a_cpu_machine() -> None:
    plan = made()
    prefill, decode, frontend = plan.processes
    assert (prefill.id, prefill.role, prefill.argv) == ("prefill-0", "prefill", worker_argv(28200, "kv_producer"))
    assert (decode.id, decode.role, decode.argv) == ("decode-0", "decode", worker_argv(28202, "kv_consumer"))
    assert prefill.env == {**WORKER_ENV, "VLLM_NIXL_SIDE_CHANNEL_PORT": "28201"}
    assert decode.env == {**WORKER_ENV, "VLLM_NIXL_SIDE_CHANNEL_PORT": "28203"}
    assert (prefill.ports, decode.ports) == (
        {"http": 28200, "side_channel": 28201},
        {"http": 28202, "side_channel": 28203},
    )
    assert (prefill.gpus, prefill.gpu_uuids, prefill.nics, prefill.cpus) == ((), (), (), None)
    assert (prefill.ucx, decode.ucx, frontend.ucx) == (True, True, False)
    assert frontend.argv == (
        *("dynctl", "frontend", "--host", "127.0.0.1", "--port", "8000"),
        *("--control", "/run/cpu-1p1d.sock", "--drain-timeout", "86400"),
    )
    assert (frontend.role, frontend.ports, frontend.probes.health) == ("frontend", {"http": 8000}, "/metrics")


def test_the_rest_of_that_plan() -> None:
    plan = made()
    assert (plan.schema, plan.name, plan.served_name, plan.model) == (1, "cpu-1p1d", "tiny", TINY_DIR)
    assert plan.frontend_url == "http://127.0.0.1:8000"
    assert plan.kv == KvShape(bytes_per_token=2 * 4 * 2 * 64 * 4, block_tokens=128)
    assert (plan.ready, plan.slo, plan.warnings) == (ReadyRules(timeout_s=1800, stall_s=300), Slo(), ())
    assert (plan.verify, plan.exact) == (True, True)
    assert [process.id for process in plan.workers()] == ["prefill-0", "decode-0"]
    assert plan.process("frontend").role == "frontend"
    with pytest.raises(KeyError):
        plan.process("prefill-1")


def test_aggregated_has_no_connector_and_no_pairs() -> None:
    plan = made(AGGREGATED)
    worker = plan.process("worker-0")
    assert "--kv-transfer-config" not in worker.argv
    assert set(worker.ports) == {"http"}
    assert not any(name.startswith(("UCX_", "VLLM_NIXL_")) for name in worker.env)
    assert (plan.transport.pairs, plan.kv, plan.verify, worker.ucx) == ((), KvShape(), False, False)


@pytest.mark.parametrize(("asked", "model", "expected"), [
    (None, "builtin:tiny", True), (False, "builtin:tiny", False), (None, "Qwen/Qwen3-32B", False),
    (True, "Qwen/Qwen3-32B", True),
])  # fmt: skip
def test_verification_is_on_for_the_tiny_model(asked: bool | None, model: str, expected: bool) -> None:
    from dynctl.plan.resolve import resolve
    from tests.unit.plan.machines import facts, topology

    assert resolve(topology(CPU_1P1D, f"model={model}"), facts(), verify=asked).verify is expected


def test_user_settings_reach_the_plan() -> None:
    plan = made(
        pools(more="ready: {timeout: 10m, stall: 90s}\nslo: {ttft: 300ms}\n", decode="{restart: {max: 7, cap: 9s}}")
    )
    assert plan.ready == ReadyRules(timeout_s=600, stall_s=90)
    assert plan.slo == Slo(ttft_ms=300)
    restart = plan.process("decode-0").restart
    assert (restart.max, restart.backoff_s, restart.cap_s) == (7, 1.0, 9.0)


@pytest.mark.parametrize(("host", "url"), [
    ("127.0.0.1", "http://127.0.0.1:8000"), ("0.0.0.0", "http://127.0.0.1:8000"), ('"::"', "http://[::1]:8000"),
    ("::1", "http://[::1]:8000"), ("10.1.2.3", "http://10.1.2.3:8000"), ("gate.example", "http://gate.example:8000"),
])  # fmt: skip
def test_the_url_by_which_the_frontend_is_reached(host: str, url: str) -> None:
    plan = made(CPU_1P1D, f"frontend.host={host}", "frontend.allow_public=true")
    assert plan.frontend_url == url
    assert "--allow-public" in plan.process("frontend").argv


def test_tls_reaches_the_frontend_and_its_own_clients() -> None:
    plan = made(CPU_1P1D, "frontend.tls={cert: /etc/c.pem, key: /etc/k.pem}")
    argv = plan.process("frontend").argv
    assert argv[argv.index("--tls-cert") :][:4] == ("--tls-cert", "/etc/c.pem", "--tls-key", "/etc/k.pem")
    assert plan.frontend_url == plan.process("frontend").probes.url == "https://127.0.0.1:8000"
    assert plan.frontend_cert == "/etc/c.pem"


def test_a_file_of_api_keys_is_handed_on() -> None:
    argv = made(CPU_1P1D, "frontend.api_keys_file=/etc/keys").process("frontend").argv
    assert argv[argv.index("--api-keys-file") + 1] == "/etc/keys"


# what can't be planned


def test_a_frontend_port_in_use_names_its_holder() -> None:
    with pytest.raises(UsageError) as caught:
        made(taken_ports={8000: "pid 77 (python -m http.server)"})
    assert caught.value.cause == "port 8000 is in use"
    assert caught.value.where == "frontend.port" or "t.yaml" in (caught.value.where or "")
    assert caught.value.why == ("held by pid 77 (python -m http.server)",)
    assert "frontend.port=8001" in (caught.value.fix or "")


def test_the_last_port_of_all_is_not_counted_up() -> None:
    with pytest.raises(UsageError) as caught:
        made(CPU_1P1D, "frontend.port=65535", taken_ports={65535: "pid 77"})
    assert "65536" not in (caught.value.fix or "")


@pytest.mark.parametrize(("missing", "words"), [
    ({"vllm": None}, "no vllm"), ({"nixl": None}, "no nixl"), ({"vllm": None, "nixl": None}, "no vllm and no nixl"),
])  # fmt: skip
def test_an_engine_environment_without_the_engine(missing: dict[str, None], words: str) -> None:
    with pytest.raises(HostError) as caught:
        made(engine=msgspec.structs.replace(ENGINE, **missing))
    assert words in caught.value.cause
    assert ENGINE.python in (caught.value.where or "")
    assert caught.value.exit_code == 3


def test_aggregated_serving_needs_no_nixl() -> None:
    assert made(AGGREGATED, engine=msgspec.structs.replace(ENGINE, nixl=None)).processes


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_a_known_engine_without_an_adapter_is_refused_in_those_words(engine: str) -> None:
    with pytest.raises(UsageError, match="has no adapter") as caught:
        made(CPU_1P1D, f"engine={engine}")
    assert caught.value.fix == "engines with an adapter: dynamo-mocker, dynamo-sglang, dynamo-trtllm, dynamo-vllm, vllm"


# warnings


def test_ambient_steering_variables_are_warned_of() -> None:
    warnings = made(ambient=("UCX_TLS", "NIXL_LOG_LEVEL")).warnings
    assert [w for w in warnings if "UCX_TLS" in w and "transport.env" in w]
    assert [w for w in warnings if "NIXL_LOG_LEVEL" in w]


def test_push_is_offered_where_pull_falls_to_tcp() -> None:
    hardware = gpus(2, nvlink=False)
    assert any("direction: push" in warning for warning in made(pools(), on=hardware).warnings)
    assert made(pools(more="transport: {direction: push}\n"), on=hardware).warnings == ()
    assert made(pools(), on=gpus(2)).warnings == ()
    assert made(CPU_1P1D, "transport.env.UCX_TLS=tcp").warnings == ()  # asked for, and there is no GPU


def test_parallelism_on_a_cpu_machine_is_warned_of() -> None:
    assert any("no GPU" in warning for warning in made(CPU_1P1D, "roles.decode.tp=2").warnings)


# JSON


def test_a_plan_survives_its_json() -> None:
    plan = made(pools("{workers: 2}", "{tp: 2}"), on=gpus(8))
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_the_json_has_the_keys_others_read() -> None:
    document: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made(pools(), on=gpus(2))))
    assert document["schema"] == 1
    assert {"schema", "name", "processes", "transport", "warnings"} <= set(document)
    for process in document["processes"]:
        keys = {"id", "role", "node", "argv", "env", "gpus", "gpu_uuids", "nics", "numa", "cpus", "ports"}
        assert keys <= set(process)
    assert {"required", "pairs"} <= set(document["transport"])
    assert {"from", "to", "path", "reason"} <= set(document["transport"]["pairs"][0])


def test_an_unreadable_model_configuration_leaves_the_weight_of_kv_open() -> None:
    from dynctl.plan.facts import ModelFacts

    assert made(model=ModelFacts(model="m")).kv == KvShape(bytes_per_token=0, block_tokens=128)
    gpu = made(pools(), on=gpus(2), model=ModelFacts(model="m", config={**TINY_CONFIG, "dtype": "bfloat16"})).kv
    assert gpu == KvShape(bytes_per_token=2048, block_tokens=0)


def test_planning_is_pure() -> None:
    assert made(pools("{workers: 2}"), on=gpus(4)) == made(pools("{workers: 2}"), on=gpus(4))
    assert made(on=cpu(32)) == made(on=cpu(32))


def test_deadlines_and_retries_of_the_topology_reach_the_frontend() -> None:
    argv = (
        made(CPU_1P1D, "frontend.timeouts={prefill: 90s, stall: 500ms}", "frontend.retries.burst=8")
        .process("frontend")
        .argv
    )
    said = argv[argv.index("--drain-timeout") + 2 :]
    assert said == ("--prefill-timeout", "90.0", "--stall-timeout", "0.5", "--retry-burst", "8.0")
    for wrong in ("timeouts.first=10ms", "timeouts.first=3", "retries.ratio=-1", "timeouts.decode=1s"):
        with pytest.raises(UsageError):
            made(CPU_1P1D, f"frontend.{wrong}")
