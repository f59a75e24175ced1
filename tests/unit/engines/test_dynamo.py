"""Dynamo's adapters: argv, environment and ports as data; what does not go together is refused before a start."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from dynctl.errors import HostError, UsageError
from dynctl.plan.facts import EngineFacts
from dynctl.plan.values import Plan
from dynctl.proof.dynamo import worker_id
from dynctl.telemetry.dynamo_trace import record_of
from tests.unit.plan.machines import CPU_1P1D, gpus, made

ENGINE = EngineFacts(python="/py", dynamo="1.6.1", vllm="0.31.0+cpu", nixl="1.4.1", torch="2.13.0")
PROFILES = Path(__file__).parents[3] / "profiles"
VLLM, MOCKER = "engine=dynamo-vllm", "engine=dynamo-mocker"
LINE = {
    "event": {
        "event_type": "request_end",
        "request": {
            "request_id": "a",
            "request_received_ms": 2000,
            "prefill_wait_time_ms": 1.0,
            "prefill_time_ms": 21.0,
            "ttft_ms": 22.0,
            "total_time_ms": 97.0,
            "kv_transfer_estimated_latency_ms": 0.0,
            "worker": {"prefill_worker_id": 7, "decode_worker_id": 8},
        },
    }
}


def planned(*sets: str, engine: EngineFacts = ENGINE) -> Plan:
    return made(CPU_1P1D, *sets, engine=engine)


def argument(plan: Plan, process: str, flag: str) -> str:
    argv = plan.process(process).argv
    return argv[argv.index(flag) + 1]


def test_workers_of_vllm_hand_over_kv_and_have_ports_of_their_own() -> None:
    plan = planned(VLLM)
    for role in ("prefill", "decode"):
        worker = plan.process(f"{role}-0")
        assert worker.argv[:3] == ("/py", "-m", "dynamo.vllm")
        assert argument(plan, worker.id, "--disaggregation-mode") == role
        assert json.loads(argument(plan, worker.id, "--kv-transfer-config"))["kv_connector"] == "NixlConnector"
        assert int(worker.env["DYN_SYSTEM_PORT"]) == worker.ports["system"] <= 32767
        assert int(worker.env["VLLM_NIXL_SIDE_CHANNEL_PORT"]) == worker.ports["side_channel"]
    ports = [port for process in plan.processes for port in process.ports.values()]
    assert len(set(ports)) == len(ports)


def test_every_process_has_the_same_planes_and_a_namespace_of_the_run() -> None:
    plan = planned(VLLM)
    names = {process.env["DYN_NAMESPACE"] for process in plan.processes}
    assert len(names) == 1
    assert all(process.env["DYN_DISCOVERY_BACKEND"] == "file" for process in plan.processes)
    assert planned(VLLM, "name=other").processes[0].env["DYN_NAMESPACE"] not in names


def test_the_router_gets_kv_events_of_who_computes_prompts() -> None:
    plan = planned(VLLM, "frontend.routing=kv", "frontend.migration_limit=3")
    assert argument(plan, "frontend", "--router-mode") == "kv"
    assert argument(plan, "frontend", "--migration-limit") == "3"
    events = json.loads(argument(plan, "prefill-0", "--kv-events-config"))
    assert events["endpoint"].endswith(f":{plan.process('prefill-0').ports['kv_events']}")
    assert "--kv-events-config" not in plan.process("decode-0").argv


def test_etcd_and_nats_of_the_run_serve_before_the_others_start() -> None:
    plan = planned(MOCKER, "control.discovery=etcd", "control.event=nats")
    client = plan.process("etcd").ports["client"]
    for process in plan.processes:
        if process.role != "control":
            assert process.needs == ("etcd", "nats")
            assert process.env["ETCD_ENDPOINTS"] == f"http://127.0.0.1:{client}"
    assert [process.id for process in plan.workers()] == ["prefill-0", "decode-0"]


def test_named_endpoints_are_used_and_nothing_is_started_for_them() -> None:
    plan = planned(MOCKER, "control.discovery=etcd", "control.etcd=[http://10.0.0.1:2379]")
    assert [process.id for process in plan.processes] == ["prefill-0", "decode-0", "frontend"]
    assert plan.process("frontend").env["ETCD_ENDPOINTS"] == "http://10.0.0.1:2379"


def test_sockets_that_others_can_reach_are_named() -> None:
    def said(*sets: str) -> bool:
        return any("all addresses" in warning for warning in planned(VLLM, *sets).warnings)

    assert said()
    assert said("control.event=nats", "frontend.routing=kv")
    assert not said("control.event=nats")


@pytest.mark.parametrize("profile", sorted(PROFILES.glob("dynamo-*.yaml")), ids=lambda path: path.stem)
def test_profiles_are_planned_with_a_port_for_everything(profile: Path) -> None:
    plan = made(profile.read_text(), engine=ENGINE)
    ports = [port for process in plan.processes for port in process.ports.values()]
    assert len(set(ports)) == len(ports)
    assert len(plan.workers()) == (16 if profile.stem.endswith("-16") else 2)


def test_mockers_take_no_gpu() -> None:
    plan = made(CPU_1P1D, MOCKER, engine=ENGINE, on=gpus(2))
    assert all(process.gpus == () for process in plan.processes)
    with pytest.raises(UsageError, match="moves no KV"):
        planned(MOCKER, "transport.require=tcp")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dynamo": None}, "no dynamo"),
        ({"vllm": "0.32.0"}, "vllm 0.32.0"),
        ({"nixl": "1.5.1"}, "nixl 1.5.1"),
        ({"dynamo": "1.7.0"}, "dynamo 1.7.0"),
    ],
)
def test_versions_that_do_not_go_together_are_refused_with_the_fix(changes: dict[str, str | None], words: str) -> None:
    with pytest.raises(HostError, match=words) as caught:
        planned(VLLM, engine=msgspec.structs.replace(ENGINE, **changes))
    assert "make engine ENGINE=dynamo" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("roles.decode.env.DYN_SYSTEM_PORT=40000", "roles.decode.env.DYN_SYSTEM_PORT"),
        ("roles.decode.args.disaggregation-mode=decode", "roles.decode.args"),
        ("frontend.args.router-mode=kv", "frontend.args"),
        ("frontend.resume=true", "frontend.resume"),
        ("frontend.routing=session", "frontend.routing"),
        ("control.nats=nats://10.0.0.1:4222", "control.nats"),
        ("frontend.kind=builtin", "frontend.kind"),
    ],
)
def test_what_dynctl_sets_and_what_dynamo_has_not_is_refused(change: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        planned(VLLM, change)
    assert where in f"{caught.value.where} {caught.value.cause}"


def test_a_system_port_of_ones_own_is_refused_with_its_bound() -> None:
    with pytest.raises(UsageError) as caught:
        planned(VLLM, "roles.decode.env.DYN_SYSTEM_PORT=40000")
    assert "`DYN_SYSTEM_PORT` is set by dynctl" in caught.value.cause
    assert "up to 32767" in str(caught.value.why)
    assert "leave it out" in (caught.value.fix or "")


@pytest.mark.parametrize("change", ["control.discovery=etcd", "frontend.routing=kv", "frontend.migration_limit=1"])
def test_keys_of_dynamo_are_refused_for_plain_vllm(change: str) -> None:
    with pytest.raises(UsageError):
        made(CPU_1P1D, change)


def test_a_line_of_the_trace_keeps_the_names_of_what_was_measured() -> None:
    record = record_of(json.dumps(LINE).encode(), {7: "prefill-0", 8: "decode-0"})
    assert record is not None
    assert (record.prefill, record.decode, record.mode) == ("prefill-0", "decode-0", "disaggregated")
    assert record.parts == {"prefill_wait": 1.0, "prefill_to_first_token": 21.0}
    assert sum(record.parts.values()) == record.ttft_ms
    assert record_of(b"{}", {}) is None
    assert record_of(b"no json", {}) is None


def test_a_workers_metrics_tell_its_id() -> None:
    assert (
        worker_id('# HELP x\ndynamo_component_uptime_seconds{worker_id="6dc4d5e36e47824"} 31.4\n') == 0x6DC4D5E36E47824
    )
    assert worker_id("nothing 1\n") is None
