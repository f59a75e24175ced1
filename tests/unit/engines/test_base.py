"""The seam between planning and engines: owned flags, agreement, and that a second adapter fits into it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dynctl.engines.base import BuiltinRouter, EngineContext, adapter, flag_name
from dynctl.engines.registry import ADAPTERS
from dynctl.engines.spec import Probes, ProcessSpec, Role, Seat
from dynctl.errors import UsageError
from dynctl.plan.facts import EngineFacts
from dynctl.topology.schema import Topology
from tests.unit.plan.machines import CPU_1P1D, cpu, made, pools, topology


@pytest.mark.parametrize(("written", "name"), [
    ("max-model-len", "max-model-len"), ("max_model_len", "max-model-len"), ("--max_model_len", "max-model-len"),
    ("--tp=4", "tp"), ("-tp", "tp"), ("hf_overrides.rope_scaling.rope_type", "hf-overrides.rope_scaling.rope_type"),
])  # fmt: skip
def test_a_flag_has_one_spelling(written: str, name: str) -> None:
    assert flag_name(written) == name


OWNED = {
    "model": "model",
    "served-model-name": "served_name",
    "host": "frontend.host",
    "port": "frontend.port",
    "kv-transfer-config": "transport",
    "tensor-parallel-size": "tp",
    "tp": "tp",
    "pipeline-parallel-size": "pp",
    "pp": "pp",
    "data-parallel-size": "dp",
    "dp": "dp",
    "device-ids": "pin",
    "api-key": "api_keys_file",
    "config": "args",
    "ssl-keyfile": "loopback",
    "ssl-certfile": "loopback",
    "uds": "loopback",
    "headless": "spans nodes",
    "nnodes": "spans nodes",
    "node-rank": "order of",
    "master-addr": "first node",
    "master-port": "gives the range",
}


@pytest.mark.parametrize("flag", OWNED)
@pytest.mark.parametrize("spell", [
    str, lambda flag: flag.replace("-", "_"), lambda flag: f"no-{flag}", lambda flag: f"{flag}.key",
])  # fmt: skip
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_owned_flags_are_refused_in_every_spelling(flag: str, spell: object, role: str) -> None:
    key = spell(flag)  # type: ignore[operator]
    with pytest.raises(UsageError) as caught:
        made(pools(**{role: f"{{args: {{{key}: 1}}}}"}), on=cpu())
    assert caught.value.cause == f"`{key}` is set by dynctl and can't be given in args"
    assert f"roles.{role}.args.{key}" in (caught.value.where or "")
    assert OWNED[flag] in (caught.value.fix or "")


@pytest.mark.parametrize("key", ["tensor-parallel", "kv_transfer", "served-model", "api_ke"])
def test_abbreviations_of_owned_flags_are_refused(key: str) -> None:
    """argparse takes any beginning of a flag that is the beginning of no other."""
    with pytest.raises(UsageError, match="is set by dynctl"):
        made(pools(decode=f"{{args: {{{key}: 1}}}}"), on=cpu())


@pytest.mark.parametrize("key", [
    "max-model-len", "model-impl", "dtype", "enforce-eager", "data-parallel-backend", "gpu-memory-utilization",
    "config-format", "kv-cache-dtype", "disable-log-stats", "hf-overrides.max_position_embeddings",
])  # fmt: skip
def test_other_flags_are_the_users(key: str) -> None:
    both = f"{{args: {{{key}: 1}}}}"
    assert made(pools(both, both), on=cpu())


# what prefill and decode must agree on


@pytest.mark.parametrize(("prefill", "decode", "flag"), [
    ("dtype: float16", "dtype: bfloat16", "dtype"),
    ("dtype: float16", "", "dtype"),
    ("", "block-size: 64", "block-size"),
    ("block_size: 32", "block-size: 64", "block-size"),
    ("kv-cache-dtype: fp8", "", "kv-cache-dtype"),
    ("quantization: fp8", "quantization: awq", "quantization"),
    ("disable-hybrid-kv-cache-manager: true", "", "disable-hybrid-kv-cache-manager"),
    ("no-disable-hybrid-kv-cache-manager: ~", "disable-hybrid-kv-cache-manager: ~", "disable-hybrid-kv-cache-manager"),
    ("speculative-config: {method: mtp}", "", "speculative-config"),
])  # fmt: skip
def test_disagreement_is_refused_before_anything_starts(prefill: str, decode: str, flag: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(pools(f"{{args: {{{prefill}}}}}", f"{{args: {{{decode}}}}}"), on=cpu())
    assert f"must agree on `{flag}`" in caught.value.cause
    assert "hash" in caught.value.why[0]


@pytest.mark.parametrize(("prefill", "decode"), [
    ("dtype: float16", "dtype: float16"),
    ("block_size: 64", "block-size: 64"),
    ("kv-cache-dtype: auto", ""),
    ("disable-hybrid-kv-cache-manager: false", ""),
    ("no-disable-hybrid-kv-cache-manager: ~", ""),
    ("disable-hybrid-kv-cache-manager: ~", "disable_hybrid_kv_cache_manager: true"),
    ("max-num-seqs: 4", "max-num-seqs: 256"),
    ("gpu-memory-utilization: 0.90", "gpu-memory-utilization: 0.5"),
])  # fmt: skip
def test_agreement_however_it_is_written(prefill: str, decode: str) -> None:
    assert made(pools(f"{{args: {{{prefill}}}}}", f"{{args: {{{decode}}}}}"), on=cpu())


# the seam


class Echo(BuiltinRouter):
    """The least that an adapter can be."""

    name = "echo"
    owned_flags: Mapping[str, str] = {"listen": "ports are allocated"}
    must_agree: Mapping[str, str] = {"colour": "blue"}

    def packages(self, topology: Topology) -> tuple[str, ...]:
        return ()

    def port_needs(self, topology: Topology, role: Role) -> dict[str, int]:
        return {"http": 1, "bus": 3} if role == "decode" else {"http": 1}

    def block_tokens(self, topology: Topology, role: Role, *, on_gpu: bool) -> int:
        return 16

    def value_type(self, topology: Topology, role: Role, *, on_gpu: bool) -> tuple[str | None, str | None]:
        return "float16", None

    def process(self, topology: Topology, seat: Seat, context: EngineContext) -> ProcessSpec:
        return ProcessSpec(
            id=seat.id,
            role=seat.role,
            argv=(context.python, "-m", "echo", context.model, str(seat.ports["http"])),
            ports=seat.ports,
            probes=Probes(url=f"http://{seat.address}:{seat.ports['http']}", models=None),
            after=("prefill-0",) if seat.role == "decode" else (),
        )


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ADAPTERS, "sglang", Echo())


@pytest.mark.usefixtures("echo")
def test_a_second_adapter_is_a_class_and_a_line() -> None:
    plan = made(CPU_1P1D, "engine=sglang", engine=EngineFacts(python="/bin/python"))
    assert plan.engine == "sglang"
    decode = plan.process("decode-0")
    assert decode.argv[1:4] == ("-m", "echo", "/cache/models/tiny-1")
    assert set(decode.ports) == {"http", "bus", "bus_1", "bus_2"}
    assert set(plan.process("prefill-0").ports) == {"http"}
    assert decode.after == ("prefill-0",)
    assert (plan.kv.bytes_per_token, plan.kv.block_tokens) == (2 * 4 * 2 * 64 * 2, 16)
    with pytest.raises(UsageError, match="`listen` is set by dynctl"):
        made(CPU_1P1D, "engine=sglang", "roles.decode.args.listen=1")
    with pytest.raises(UsageError, match="must agree on `colour`: blue and red"):
        made(CPU_1P1D, "engine=sglang", "roles.decode.args.colour=red")


def test_the_registry_names_adapters_as_the_topology_does() -> None:
    for name, engine in ADAPTERS.items():
        assert engine.name == name
        assert adapter(topology(CPU_1P1D, f"engine={name}")) is engine
