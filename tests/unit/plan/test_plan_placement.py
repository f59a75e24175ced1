"""Who sits where: GPUs, pins, cores and ports."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.engines.spec import ProcessSpec
from dynctl.errors import HostError, UsageError
from dynctl.hardware.values import parse_cpu_list
from dynctl.plan.ports import CANDIDATES, FIRST_PORT, LAST_PORT, PortAllocator, candidates
from dynctl.plan.values import Plan
from dynctl.preflight.ports import taken_ports
from tests.unit.plan.machines import ACTIVE, CPU_1P1D, INACTIVE, cpu, gpus, made, pools


def seats(plan: Plan) -> dict[str, tuple[int, ...]]:
    return {process.id: process.gpus for process in plan.workers()}


def every_port(process: ProcessSpec) -> list[int]:
    return list(process.ports.values())


def test_whole_gpus_in_order_prefill_first() -> None:
    plan = made(pools("{workers: 2, tp: 2}", "{tp: 4}"), on=gpus(8))
    assert seats(plan) == {"prefill-0": (0, 1), "prefill-1": (2, 3), "decode-0": (4, 5, 6, 7)}
    decode = plan.process("decode-0")
    assert decode.gpu_uuids == ("GPU-0004", "GPU-0005", "GPU-0006", "GPU-0007")
    assert decode.numa == 1
    assert decode.env["CUDA_VISIBLE_DEVICES"] == "GPU-0004,GPU-0005,GPU-0006,GPU-0007"


def test_busy_gpus_are_passed_over() -> None:
    assert seats(made(pools(), on=gpus(4, busy=(0, 2)))) == {"prefill-0": (1,), "decode-0": (3,)}


def test_too_few_free_gpus_names_who_holds_them() -> None:
    with pytest.raises(HostError) as caught:
        made(pools("{tp: 2}", "{tp: 2}"), on=gpus(4, busy=(1,)))
    assert caught.value.cause == "the topology needs 4 GPUs; this machine has 3 free of 4"
    assert caught.value.why == ("GPU 1 is held by pid 4001",)


@pytest.mark.parametrize("roles", [("{tp: 8}", "{}"), ("{workers: 1024}", "{}"), ("{}", "{dp: 64}")])
def test_more_gpus_than_there_are(roles: tuple[str, str]) -> None:
    with pytest.raises(HostError) as caught:
        made(pools(*roles), on=gpus(8))
    assert caught.value.exit_code == 3
    assert "8 free of 8" in caught.value.cause


def test_who_writes_gpus_means_gpus() -> None:
    with pytest.raises(HostError, match="decode is to have 2 GPUs for each worker; this machine has none"):
        made(pools(decode="{gpus: 2}"), on=cpu())
    assert made(pools(decode="{tp: 2}"), on=cpu())


# pins


def test_a_pinned_worker_sits_where_it_was_put() -> None:
    plan = made(pools("{pin: [{gpus: [3]}]}", "{pin: [{gpus: [1], nics: [mlx5_0]}]}"), on=gpus(4, nics=(ACTIVE,)))
    assert seats(plan) == {"prefill-0": (3,), "decode-0": (1,)}
    assert plan.process("decode-0").nics == ("mlx5_0",)


def test_pins_come_before_free_choice() -> None:
    """Prefill is placed first, but must not take the GPU that decode is pinned to."""
    plan = made(pools("{workers: 2}", "{pin: [{gpus: [0]}]}"), on=gpus(3))
    assert seats(plan) == {"prefill-0": (1,), "prefill-1": (2,), "decode-0": (0,)}


def test_a_pin_without_gpus_only_names_nics() -> None:
    plan = made(pools("{pin: [{nics: [mlx5_0]}]}"), on=gpus(2, nics=(ACTIVE,)))
    assert (plan.process("prefill-0").gpus, plan.process("prefill-0").nics) == ((0,), ("mlx5_0",))


@pytest.mark.parametrize(("pin", "machine", "words"), [
    ("{gpus: [9]}", gpus(4), "GPU 9, which does not exist"),
    ("{gpus: [0]}", cpu(), "GPU 0, which does not exist"),
    ("{gpus: [1]}", gpus(4, busy=(1,)), "GPU 1, which is held by pid 4001"),
    ("{nics: [mlx5_7]}", gpus(4, nics=(ACTIVE,)), "mlx5_7, which does not exist"),
    ("{nics: [mlx5_1]}", gpus(4, nics=(ACTIVE, INACTIVE)), "mlx5_1, which has no active port"),
])  # fmt: skip
def test_a_pin_that_can_not_be_kept(pin: str, machine: object, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(pools(decode=f"{{pin: [{pin}]}}"), on=machine)  # type: ignore[arg-type]
    assert words in caught.value.cause
    assert caught.value.cause.startswith("decode-0 is pinned to ")
    assert (caught.value.where or "").startswith("t.yaml:7 roles.decode.pin[0]")


def test_a_gpu_pinned_by_both_roles() -> None:
    with pytest.raises(UsageError) as caught:
        made(pools("{pin: [{gpus: [1]}]}", "{pin: [{gpus: [1]}]}"), on=gpus(4))
    assert caught.value.cause == "decode-0 is pinned to GPU 1, which prefill-0 has"


# cores


def test_cores_are_divided_where_there_are_enough() -> None:
    plan = made(on=cpu(8))
    assert [process.cpus for process in plan.workers()] == ["0-2", "3-5"]
    assert plan.process("frontend").cpus is None
    assert plan.process("prefill-0").env["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("cores", [1, 2, 4, 5])
def test_too_few_cores_are_shared(cores: int) -> None:
    plan = made(on=cpu(cores))
    assert [process.cpus for process in plan.workers()] == [None, None]
    assert plan.process("prefill-0").env["OMP_NUM_THREADS"] == "1"


# ports


def test_ports_are_the_same_every_time_and_below_the_ephemeral_range() -> None:
    assert list(candidates("a")) == list(candidates("a"))
    assert len(set(candidates("a"))) == CANDIDATES
    assert all(FIRST_PORT <= port <= LAST_PORT < 32768 for name in "abcdef" for port in candidates(name))


def test_runs_of_different_names_begin_elsewhere() -> None:
    assert len({next(candidates(f"run-{number}")) for number in range(20)}) > 10


def test_taken_ports_and_the_frontends_are_skipped() -> None:
    taken = {28200: "pid 1", 28202: "pid 2"}
    plan = made(CPU_1P1D, "frontend.port=28203", taken_ports=taken)
    assert [every_port(process) for process in plan.workers()] == [[28201, 28204], [28205, 28206]]


def test_data_parallel_ranks_get_consecutive_side_channels() -> None:
    plan = made(pools("{}", "{dp: 4}"), on=gpus(8), taken_ports={})
    decode, prefill = plan.process("decode-0"), plan.process("prefill-0")
    base = int(decode.env["VLLM_NIXL_SIDE_CHANNEL_PORT"])
    owned = {port for name, port in decode.ports.items() if name.startswith("side_channel")}
    assert owned == {base, base + 1, base + 2, base + 3}
    assert len(prefill.ports) == 2
    assert not owned & set(prefill.ports.values())


def test_every_port_that_may_be_given_out_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynctl.preflight.ports.holder", lambda port, address: "pid 1")
    assert set(taken_ports([8000, *candidates("x")], {1: "elsewhere"})) == {8000, *candidates("x")}


def test_consecutive_ports_leave_no_taken_one_between() -> None:
    first = next(candidates("x"))
    allocator = PortAllocator.of_run("x", {first + 2: "pid 1"})
    assert allocator.take(3) == first + 3
    assert [allocator.take(), allocator.take(2), allocator.take()] == [first, first + 6, first + 1]


def test_consecutive_ports_do_not_wrap_around() -> None:
    name = next(f"n{number}" for number in range(100_000) if next(candidates(f"n{number}")) == LAST_PORT - 99)
    taken = dict.fromkeys(range(LAST_PORT - 99, LAST_PORT), "pid 1")
    allocator = PortAllocator.of_run(name, taken)
    assert allocator.take(2) == FIRST_PORT
    assert allocator.take() == LAST_PORT


def test_no_ports_left() -> None:
    with pytest.raises(HostError, match="no 3 consecutive free ports"):
        PortAllocator.of_run("x", dict.fromkeys(itertools.islice(candidates("x"), 1, None, 2), "pid 1")).take(3)
    with pytest.raises(HostError):
        made(CPU_1P1D, "roles.prefill.workers=1000", on=cpu())


# whatever the topology


ROLE = st.builds(lambda workers, tp, dp: f"{{workers: {workers}, tp: {tp}, dp: {dp}}}", *[st.integers(1, 3)] * 3)


@settings(deadline=None, max_examples=60)
@given(prefill=ROLE, decode=ROLE, busy=st.sets(st.integers(0, 31), max_size=4), taken=st.sets(st.integers(0, 60)))
def test_gpus_and_ports_are_disjoint(prefill: str, decode: str, busy: set[int], taken: set[int]) -> None:
    first = next(candidates("x"))
    ports = {first + offset: "pid 1" for offset in taken}
    hardware = gpus(32, busy=tuple(busy))
    try:
        plan = made(pools(prefill, decode), on=hardware, taken_ports=ports)
    except HostError as error:
        if "GPUs" not in error.cause:
            raise
        return
    assert plan == made(pools(prefill, decode), on=hardware, taken_ports=ports)
    every_gpu = [gpu for process in plan.workers() for gpu in process.gpus]
    assert len(every_gpu) == len(set(every_gpu))
    assert not set(every_gpu) & busy
    used = [port for process in plan.processes for port in every_port(process)]
    assert len(used) == len(set(used))
    assert not set(used) & set(ports)


@settings(deadline=None, max_examples=60)
@given(cores=st.integers(1, 64), prefills=st.integers(1, 6), decodes=st.integers(1, 6))
def test_cores_are_disjoint_and_two_are_left(cores: int, prefills: int, decodes: int) -> None:
    plan = made(CPU_1P1D, f"roles.prefill.workers={prefills}", f"roles.decode.workers={decodes}", on=cpu(cores))
    slices = [parse_cpu_list(process.cpus) for process in plan.workers() if process.cpus]
    assert len(slices) in (0, prefills + decodes)
    used = [core for part in slices for core in part]
    assert len(used) == len(set(used)) <= max(0, cores - 2)
    assert all(len(part) >= 2 for part in slices)
