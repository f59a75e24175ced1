"""Other counts for a run: who runs stays where it is, who comes gets what is left, what does not fit is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.errors import HostError, UsageError
from dynctl.hardware.values import Hardware, Holder, parse_cpu_list
from dynctl.plan.facts import EngineFacts
from dynctl.plan.rescale import check_counts, moved, parse_counts, present_counts, rescale, rewritten, without
from dynctl.plan.values import Plan
from tests.unit.plan.machines import CPU_1P1D, cpu, facts, gpus, made, pools, topology
from tests.unit.plan.shapes import gpu, machine


def scaled(plan: Plan, text: str, on: Hardware, *sets: str, **changes: Any) -> Plan:
    """That run with other counts, its own ports and GPUs being in use."""
    ports = {port: "pid 1" for process in plan.processes for port in process.ports.values()}
    devices = {device for process in plan.processes for device in process.gpu_uuids}
    held = tuple(
        msgspec.structs.replace(one, holders=(Holder(pid=7, run=plan.name),)) if one.uuid in devices else one
        for one in on.gpus
    )
    busy = msgspec.structs.replace(on, gpus=held)
    found = facts(busy, taken_ports={**ports, **changes.pop("taken_ports", {})}, **changes)
    return rescale(plan, topology(text, *sets), found)


def counts(prefill: int, decode: int) -> tuple[str, str]:
    return f"roles.prefill.workers={prefill}", f"roles.decode.workers={decode}"


shape = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=60)
@given(first=shape, steps=st.lists(shape, min_size=1, max_size=3), tp=st.sampled_from([1, 2]), has_gpus=st.booleans())
def test_who_runs_never_moves_and_nobody_gets_what_another_has(
    first: tuple[int, int], steps: list[tuple[int, int]], tp: int, has_gpus: bool
) -> None:
    text = pools(f"{{tp: {tp}}}", "{}") if has_gpus else CPU_1P1D
    on = machine([gpu(at, numa=at // 5) for at in range(10)], [], cores=48) if has_gpus else cpu(64)
    plan = made(text, *counts(*first), on=on)
    for step in steps:
        after = scaled(plan, text, on, *counts(*step))
        assert moved(plan, after) == []
        before = {process.id: process for process in plan.processes}
        for process in after.processes:
            if process.id in before:
                assert process.ports == before[process.id].ports
                assert (process.argv, process.env) == (before[process.id].argv, before[process.id].env)
        assert present_counts(after) == {"prefill": step[0], "decode": step[1]}
        ports = [port for process in after.processes for port in process.ports.values()]
        devices = [device for process in after.processes for device in process.gpu_uuids]
        cores = [core for process in after.processes if process.cpus for core in parse_cpu_list(process.cpus)]
        for held in (ports, devices, cores):
            assert len(held) == len(set(held))
        assert len(after.transport.pairs) == step[0] * step[1]
        plan = after


def test_a_new_worker_gets_what_it_would_have_had_from_the_start() -> None:
    on = machine([gpu(at, numa=at // 4) for at in range(8)], [], cores=48)
    whole = made(pools("{workers: 2}", "{workers: 2}"), on=on)
    grown = scaled(made(pools("{workers: 2}", "{}"), on=on), pools("{workers: 2}", "{workers: 2}"), on)
    for one, other in zip(whole.workers(), grown.workers(), strict=True):
        assert len(parse_cpu_list(one.cpus or "")) <= len(parse_cpu_list(other.cpus or "")), "or what is left over"
    assert [process.gpus for process in grown.workers()] == [process.gpus for process in whole.workers()]


def test_what_does_not_fit_is_refused_as_a_plan_is() -> None:
    text, on = pools("{tp: 2}", "{tp: 2}"), gpus(5)
    plan = made(text, on=on)
    with pytest.raises(HostError, match="the topology needs 6 GPUs; this machine has 5 free of 5"):
        scaled(plan, text, on, *counts(1, 2))
    foreign = gpus(6, busy=(5,))
    with pytest.raises(HostError, match="needs 6 GPUs; this machine has 5 free of 6") as caught:
        scaled(plan, text, foreign, *counts(1, 2))
    assert caught.value.why == ("GPU 5 is held by pid 4005",)


def test_workers_on_one_gpu_start_after_those_that_are_there() -> None:
    text = pools("{share: 0.3}", "{share: 0.3}")
    plan = made(text, on=gpus(1))
    grown = scaled(plan, text, gpus(1), *counts(1, 3 - 1))
    assert grown.process("decode-1").gpus == (0,)
    assert grown.process("decode-1").after == ("decode-0",)
    with pytest.raises(HostError):
        scaled(grown, text, gpus(1), *counts(2, 2))
    less = without(grown, {"decode-0"})
    assert less.process("decode-1").after == ()
    assert [(pair.from_, pair.to) for pair in less.transport.pairs] == [("prefill-0", "decode-1")]


def test_ports_that_others_hold_are_passed_over_and_those_of_who_went_are_free_again() -> None:
    plan = made(CPU_1P1D, *counts(1, 2))
    gone = plan.process("decode-1").ports["http"]
    shrunk = scaled(plan, CPU_1P1D, cpu(), *counts(1, 1))
    assert [process.id for process in shrunk.workers()] == ["prefill-0", "decode-0"]
    assert scaled(shrunk, CPU_1P1D, cpu(), *counts(1, 2)).process("decode-1").ports["http"] == gone
    taken = scaled(shrunk, CPU_1P1D, cpu(), *counts(1, 2), taken_ports={gone: "pid 9"})
    assert taken.process("decode-1").ports["http"] != gone


def test_without_gpus_who_comes_has_no_cores_where_all_are_had() -> None:
    plan = made(on=cpu(16))
    assert all(process.cpus for process in plan.workers())
    grown = scaled(plan, CPU_1P1D, cpu(16), *counts(1, 2))
    assert grown.process("decode-1").cpus is None
    assert grown.process("decode-1").reasons[0].startswith("any core: 2 are too few") or any(
        "too few" in reason for reason in grown.process("decode-1").reasons
    )
    freed = scaled(
        scaled(made(CPU_1P1D, *counts(2, 2), on=cpu(34)), CPU_1P1D, cpu(34), *counts(1, 1)),
        CPU_1P1D,
        cpu(34),
        *counts(1, 2),
    )
    assert freed.process("decode-1").cpus


def test_another_engine_or_model_is_refused() -> None:
    plan = made()
    with pytest.raises(UsageError, match="interpreter is another"):
        scaled(plan, CPU_1P1D, cpu(), *counts(1, 2), engine=EngineFacts(python="/x", vllm="1", nixl="1", torch="1"))
    other = msgspec.structs.replace(facts().model, model="/other")
    with pytest.raises(UsageError, match="the model is another"):
        scaled(plan, CPU_1P1D, cpu(), *counts(1, 2), model=other)


def test_counts_in_words() -> None:
    assert parse_counts(["decode=2", "prefill=10"]) == {"decode": 2, "prefill": 10}
    for words in (["decode"], ["=2"], ["decode=-1"], ["decode=x"], ["decode=1", "decode=2"], [], ["decode=1000000"]):
        with pytest.raises(UsageError):
            parse_counts(words)
    plan = made()
    with pytest.raises(UsageError) as caught:
        check_counts(plan, {"worker": 2})
    assert caught.value.why == ("its roles: prefill, decode",)
    for refused in ({"prefill": 0}, {"decode": 2000}):
        with pytest.raises(UsageError):
            check_counts(plan, refused)


def test_the_kept_topology_has_the_new_counts_and_the_pins_of_who_stays() -> None:
    document = {"roles": {"prefill": None, "decode": {"workers": 2, "tp": 1, "pin": [{"gpus": [1]}, {"gpus": [2]}]}}}
    changed = json.loads(rewritten(json.dumps(document).encode(), {"prefill": 3, "decode": 1}))
    assert changed["roles"] == {"prefill": {"workers": 3}, "decode": {"workers": 1, "tp": 1, "pin": [{"gpus": [1]}]}}
