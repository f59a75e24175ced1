"""vLLM's argv and environment from topology and seat."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from dynctl.engines.spec import ProcessSpec
from dynctl.engines.vllm import Vllm
from dynctl.hardware.values import Hardware
from tests.unit.plan.machines import ACTIVE, CPU_1P1D, cpu, gpus, made, pools, topology


def decode(args: str = "", *, env: str = "", transport: str = "", on: Hardware | None = None) -> ProcessSpec:
    both = f"{{args: {{{args}}}, env: {{{env}}}}}"
    return made(pools(both, both, f"transport: {{{transport}}}\n"), on=on or cpu()).process("decode-0")


def connector(process: ProcessSpec) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(process.argv[process.argv.index("--kv-transfer-config") + 1])
    return found


def rendered(process: ProcessSpec) -> tuple[str, ...]:
    """What follows dynctl's own flags."""
    return process.argv[process.argv.index("--kv-transfer-config") + 2 :]


# arguments


@pytest.mark.parametrize(("args", "argv"), [
    ("max-model-len: 8192", ("--max-model-len", "8192")),
    ("max_model_len: 8192", ("--max-model-len", "8192")),
    ("gpu-memory-utilization: 0.90", ("--gpu-memory-utilization", "0.90")),
    ("enable-chunked-prefill: true", ("--enable-chunked-prefill",)),
    ("enable-chunked-prefill: ~", ("--enable-chunked-prefill",)),
    ("enable_prefix_caching: false", ("--no-enable-prefix-caching",)),
    ("limit-mm-per-prompt: {image: 2}", ("--limit-mm-per-prompt", '{"image":2}')),
    ("middleware: [a, b]", ("--middleware", '["a","b"]')),
    ("hf_overrides.rope_scaling: x", ("--hf-overrides.rope_scaling", "x")),
    ("quantization: fp8, seed: 1", ("--quantization", "fp8", "--seed", "1")),
    ("tokenizer: 'two words; $(x)'", ("--tokenizer", "two words; $(x)")),
])  # fmt: skip
def test_flags_are_rendered_as_vllm_reads_them(args: str, argv: tuple[str, ...]) -> None:
    assert rendered(decode(args, on=gpus(2))) == argv


def test_parallel_sizes_are_given_only_where_they_split() -> None:
    argv = made(pools("{tp: 2, pp: 2}", "{tp: 4, dp: 2}"), on=gpus(12)).process("decode-0").argv
    assert argv[argv.index("--tensor-parallel-size") + 1] == "4"
    assert argv[argv.index("--data-parallel-size") + 1] == "2"
    assert "--pipeline-parallel-size" not in argv
    prefill = made(pools("{tp: 2, pp: 2}", "{tp: 4}"), on=gpus(12)).process("prefill-0").argv
    assert prefill[prefill.index("--pipeline-parallel-size") + 1] == "2"


# the connector


def test_roles_and_connector() -> None:
    plan = made(pools(), on=gpus(2))
    prefill, second = connector(plan.process("prefill-0")), connector(plan.process("decode-0"))
    assert prefill == {
        "kv_connector": "NixlConnector",
        "kv_role": "kv_producer",
        "kv_load_failure_policy": "fail",
        "kv_buffer_device": "cuda",
        "kv_connector_extra_config": {"backends": ["UCX"], "kv_lease_duration": 30},
    }
    assert second == {**prefill, "kv_role": "kv_consumer"}


def test_push_and_another_backend() -> None:
    found = connector(decode(transport="direction: push, backend: libfabric"))
    assert found["kv_connector"] == "NixlPushConnector"
    assert found["kv_connector_extra_config"]["backends"] == ["LIBFABRIC"]
    assert found["kv_buffer_device"] == "cpu"


@pytest.mark.parametrize(("lease", "seconds"), [("30s", 30), ("2m", 120), ("1500ms", 2), ("200ms", 1)])
def test_the_lease_is_whole_seconds_and_never_none(lease: str, seconds: int) -> None:
    found = connector(decode(transport=f"lease: {lease}"))["kv_connector_extra_config"]["kv_lease_duration"]
    assert found == seconds
    assert isinstance(found, int)


def test_further_connector_keys_are_merged_verbatim() -> None:
    extra = connector(decode(transport="connector: {num_threads: 8, backends: [UCX, GDS]}"))[
        "kv_connector_extra_config"
    ]
    assert extra == {"backends": ["UCX", "GDS"], "kv_lease_duration": 30, "num_threads": 8}


# environment


def test_gpus_are_given_by_uuid() -> None:
    env = made(pools("{tp: 2}", "{tp: 2}"), on=gpus(4)).process("decode-0").env
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == ("GPU-0002,GPU-0003", "PCI_BUS_ID")
    assert not {"VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS"} & set(env)


def test_pinned_nics_are_ucxs_devices() -> None:
    hardware = gpus(2, nvlink=False, nics=(ACTIVE,))
    plan = made(pools("{}", "{pin: [{nics: [mlx5_0]}]}"), on=hardware)
    assert plan.process("decode-0").env["UCX_NET_DEVICES"] == "mlx5_0:1,lo"
    assert plan.process("prefill-0").env["UCX_NET_DEVICES"] == "mlx5_0:1,lo"


def test_the_side_channel_is_set_for_each() -> None:
    plan = made()
    for process in plan.workers():
        assert process.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "127.0.0.1"
        assert process.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == str(process.ports["side_channel"])


def test_everything_is_on_loopback() -> None:
    for process in made(pools("{workers: 2}"), on=gpus(4)).workers():
        assert process.argv[process.argv.index("--host") + 1] == "127.0.0.1"
        assert (process.env["VLLM_HOST_IP"], process.env["GLOO_SOCKET_IFNAME"]) == ("127.0.0.1", "lo")
        assert process.env["UCX_NET_DEVICES"] == "lo"


def test_users_settings_win() -> None:
    env = decode(env="OMP_NUM_THREADS: 4, UCX_LOG_LEVEL: debug", transport="env: {UCX_NET_DEVICES: eth0}").env
    assert (env["OMP_NUM_THREADS"], env["UCX_LOG_LEVEL"], env["UCX_NET_DEVICES"]) == ("4", "debug", "eth0")
    assert decode(env="UCX_TLS: sm", transport="env: {UCX_TLS: tcp}").env["UCX_TLS"] == "sm"


# on a machine without a GPU


def test_the_cpu_recipe() -> None:
    process = made().process("decode-0")
    assert rendered(process) == ("--dtype", "float32", "--enforce-eager")
    assert process.env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert process.env["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@pytest.mark.parametrize(("args", "argv"), [
    ("dtype: bfloat16", ("--enforce-eager", "--dtype", "bfloat16")),
    ("enforce-eager: false", ("--dtype", "float32", "--no-enforce-eager")),
    ("no_enforce_eager: ~", ("--dtype", "float32", "--no-enforce-eager")),
    ("enforce_eager: true", ("--dtype", "float32", "--enforce-eager")),
])  # fmt: skip
def test_the_recipe_gives_way_to_what_the_user_says(args: str, argv: tuple[str, ...]) -> None:
    assert rendered(decode(args)) == argv


# what the weight of KV rests on


@pytest.mark.parametrize(("args", "on_gpu", "tokens"), [
    ("", False, 128), ("", True, 0), ("block-size: 64", False, 64), ("block_size: 32", True, 32),
    ("block-size: '64'", False, 64), ("block-size: 64.0", False, 0), ("block-size: true", False, 0),
])  # fmt: skip
def test_block_sizes(args: str, on_gpu: bool, tokens: int) -> None:
    both = f"{{args: {{{args}}}}}"
    assert Vllm().block_tokens(topology(pools(both, both)), "decode", on_gpu=on_gpu) == tokens


@pytest.mark.parametrize(("args", "on_gpu", "types"), [
    ("", False, ("float32", None)), ("", True, (None, None)), ("dtype: half", False, ("half", None)),
    ("kv_cache_dtype: fp8", True, (None, "fp8")),
])  # fmt: skip
def test_value_types(args: str, on_gpu: bool, types: tuple[str | None, str | None]) -> None:
    both = f"{{args: {{{args}}}}}"
    assert Vllm().value_type(topology(pools(both, both)), "decode", on_gpu=on_gpu) == types


def test_ports_by_role() -> None:
    given = topology(CPU_1P1D, "roles.decode.dp=3")
    assert Vllm().port_needs(given, "prefill") == {"http": 1, "side_channel": 1}
    assert Vllm().port_needs(given, "decode") == {"http": 1, "side_channel": 3}


def test_probes_and_restart_rule() -> None:
    process = made(CPU_1P1D, "roles.decode.restart.max=0").process("decode-0")
    assert process.probes.url == f"http://127.0.0.1:{process.ports['http']}"
    assert (process.probes.health, process.probes.models, process.probes.metrics) == (
        "/health",
        "/v1/models",
        "/metrics",
    )
    assert (process.restart.max, process.ucx) == (0, True)
