"""Which NICs each GPU gets, on machines of many shapes; and that nearest means nearest."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.engines.spec import ProcessSpec
from dynctl.hardware import imports
from dynctl.hardware.distance import nic_distance
from dynctl.hardware.values import DISTANCES, Hardware, parse_cpu_list
from dynctl.plan.placement.nics import Nearest, NicIndex, spread, usable
from tests.unit.hardware import matrices
from tests.unit.plan import shapes
from tests.unit.plan.machines import made, pools


def check(hardware: Hardware, workers: tuple[ProcessSpec, ...]) -> None:
    """Nearest NICs only, all of them usable, and none with more GPUs than an even spread would give one."""
    nics = {nic.name: nic for nic in hardware.nics}
    gpus = {gpu.index: gpu for gpu in hardware.gpus}
    ready = [nic for nic in hardware.nics if nic.use == "kv" and nic.active_ports]
    users: dict[str, set[int]] = {}
    near: dict[int, frozenset[str]] = {}
    for worker in workers:
        for index in worker.gpus:
            ranks = {nic.name: DISTANCES.index(nic_distance(gpus[index], nic)) for nic in ready}
            near[index] = frozenset(name for name, rank in ranks.items() if rank == min(ranks.values()))
        assert set(worker.nics) <= frozenset().union(*(near[index] for index in worker.gpus))
        assert all(nics[name] in ready for name in worker.nics)
        assert bool(worker.nics) == bool(ready)
        if len(worker.gpus) == 1:
            for name in worker.nics:
                users.setdefault(name, set()).add(worker.gpus[0])
    for name, having in users.items():
        sets = {some for some in near.values() if name in some}
        touching = [sum(bool(some & other) for other in near.values()) for some in sets]
        assert len(having) <= max(math.ceil(count / len(some)) for count, some in zip(touching, sets, strict=True))


def own(number: int) -> dict[int, tuple[str, ...]]:
    return {at: (f"mlx5_{at}",) for at in range(number)}


@pytest.mark.parametrize(("hardware", "expected"), [
    (imports.load(matrices.HGX), own(8)),
    (imports.load(matrices.PAIRS), own(8)),
    (shapes.HGX, own(8)),
    (shapes.PAIRS, own(8)),
    (shapes.STORAGE, own(8)),
    (shapes.SHUFFLED, {at: (f"mlx5_{nic}",) for at, nic in enumerate((5, 0, 7, 2, 1, 6, 3, 4))}),
    (shapes.FEW, {at: (f"mlx5_{at // 2}",) for at in range(8)}),
    (shapes.BONDS, {0: ("mlx5_bond_1",), 1: ("mlx5_bond_1",), 2: ("mlx5_bond_2",), 3: ("mlx5_bond_2",)}),
    (shapes.PXB, {0: ("mlx5_0",), 1: ("mlx5_0",), 2: ("mlx5_1",), 3: ("mlx5_1",)}),
    (shapes.ALL_NODE, own(4)),
    (shapes.FLAT, {0: ("mlx5_0",), 1: ("mlx5_0",), 2: ("mlx5_1",), 3: ("mlx5_1",)}),
    (shapes.NO_NICS, dict.fromkeys(range(4), ())),
    (shapes.BRIDGED, {0: ("mlx5_0",), 1: ("mlx5_0",), 2: ("mlx5_1",), 3: ("mlx5_1",)}),
], ids=["hgx.txt", "a800.txt", "hgx", "pairs", "storage", "shuffled", "few", "bonds", "pxb", "all-node", "flat", "none",
        "bridged"])  # fmt: skip
def test_every_gpu_its_nearest_nics(hardware: Hardware, expected: dict[int, tuple[str, ...]]) -> None:
    plan = made(pools("{}", f"{{workers: {len(hardware.gpus) - 1}}}"), on=hardware)
    assert {process.gpus[0]: process.nics for process in plan.workers()} == expected
    check(hardware, plan.workers())


def test_a_port_that_is_up_is_named_by_its_number() -> None:
    plan = made(pools("{}", "{}", "transport: {require: auto}\n"), on=without_nvlink(shapes.BONDS))
    assert [process.env["UCX_NET_DEVICES"] for process in plan.workers()] == ["mlx5_bond_1:2,lo", "mlx5_bond_2:1,lo"]


def without_nvlink(hardware: Hardware) -> Hardware:
    gpus = tuple(msgspec.structs.replace(gpu, nvswitch_links=0, nvlinks={}) for gpu in hardware.gpus)
    return msgspec.structs.replace(hardware, gpus=gpus)


def test_each_rank_has_its_gpus_nic() -> None:
    plan = made(pools("{tp: 2}", "{tp: 4}"), on=without_nvlink(shapes.SHUFFLED))
    env = plan.process("decode-0").env
    gpus, nics = shapes.SHUFFLED.gpus, {nic.name: nic.pci for nic in shapes.SHUFFLED.nics}
    beside = {4: "mlx5_1", 5: "mlx5_6", 6: "mlx5_3", 7: "mlx5_4"}
    assert env["VLLM_GPU_NIC_PCIE_MAPPING"] == ",".join(f"{gpus[at].pci}={nics[name]}" for at, name in beside.items())
    assert env["VLLM_NIC_SELECTION_VARS"] == "UCX_NET_DEVICES:1,NCCL_IB_HCA:1"
    assert env["UCX_NET_DEVICES"] == "lo"
    assert plan.process("decode-0").nics == tuple(beside.values())


def test_ranks_that_share_a_nic_need_no_mapping() -> None:
    env = made(pools("{tp: 2}", "{tp: 2}"), on=without_nvlink(shapes.PXB)).process("decode-0").env
    assert "VLLM_GPU_NIC_PCIE_MAPPING" not in env
    assert env["UCX_NET_DEVICES"] == "mlx5_1:1,lo"


def test_who_names_ucxs_devices_gets_no_mapping() -> None:
    text = pools("{tp: 2}", "{tp: 4}", "transport: {env: {UCX_NET_DEVICES: 'mlx5_0:1'}}\n")
    env = made(text, on=without_nvlink(shapes.HGX)).process("decode-0").env
    assert env["UCX_NET_DEVICES"] == "mlx5_0:1"
    assert not [name for name in env if name.startswith("VLLM_NIC") or "MAPPING" in name]


def test_ports_of_different_numbers_can_not_be_mapped() -> None:
    nics = list(shapes.HGX.nics)
    nics[5] = msgspec.structs.replace(nics[5], ports=(shapes.port(1, up=False), shapes.port(2)))
    hardware = msgspec.structs.replace(without_nvlink(shapes.HGX), nics=tuple(nics))
    env = made(pools("{tp: 4}", "{tp: 4}"), on=hardware).process("decode-0").env
    assert env["UCX_NET_DEVICES"] == "mlx5_4:1,mlx5_5:2,mlx5_6:1,mlx5_7:1,lo"
    assert "VLLM_GPU_NIC_PCIE_MAPPING" not in env


def test_nvlink_pairs_listen_on_loopback_only_and_keep_their_nics() -> None:
    decode = made(pools("{}", "{}"), on=shapes.HGX).process("decode-0")
    assert (decode.env["UCX_NET_DEVICES"], decode.nics) == ("lo", ("mlx5_1",))


def test_pinned_nics_are_divided_by_distance() -> None:
    pin = "{tp: 4, pin: [{gpus: [0, 1, 2, 3], nics: [mlx5_3, mlx5_1]}]}"
    plan = made(pools("{}", pin), on=without_nvlink(shapes.PAIRS))
    env = plan.process("decode-0").env
    nics = {nic.name: nic.pci for nic in shapes.PAIRS.nics}
    mapped = [part.split("=")[1] for part in env["VLLM_GPU_NIC_PCIE_MAPPING"].split(",")]
    assert mapped == [nics[name] for name in ("mlx5_1", "mlx5_1", "mlx5_3", "mlx5_3")]
    assert plan.process("decode-0").nics == ("mlx5_3", "mlx5_1")


# the index finds what trying every NIC would find


BUS = st.integers(0, 2)
PATHS = st.one_of(
    st.just(()),
    st.tuples(BUS, st.lists(BUS, min_size=0, max_size=4)).map(
        lambda parts: (f"pci{parts[0]}", *(f"{'.'.join(map(str, parts[1][: at + 1]))}" for at in range(len(parts[1]))))
    ),
)
NUMAS = st.sampled_from((None, -1, 0, 1))
USES = st.sampled_from(("kv", "kv", "kv", "storage", "management"))


@st.composite
def machines(draw: st.DrawFn) -> Hardware:
    def device(path: tuple[str, ...], number: str) -> tuple[str, ...]:
        return (*path, number) if path else ()

    gpus = [
        shapes.gpu(at, device(draw(PATHS), f"gpu{at}"), draw(NUMAS), nvswitch_links=draw(st.sampled_from((0, 18))))
        for at in range(draw(st.integers(1, 12)))
    ]
    nics = [
        shapes.nic(
            f"mlx5_{at}", device(draw(PATHS), f"nic{at}"), draw(NUMAS), use=draw(USES),
            ports=(shapes.port(up=draw(st.booleans())), shapes.port(2, up=draw(st.booleans()))),
        )
        for at in range(draw(st.integers(0, 8)))
    ]  # fmt: skip
    return shapes.machine(gpus, nics, nodes=draw(st.integers(0, 2)), cores=draw(st.integers(1, 24)))


@settings(deadline=None, max_examples=300)
@given(machines())
def test_nearest_is_what_comparing_every_pair_finds(hardware: Hardware) -> None:
    index = NicIndex(hardware)
    ready = [nic for nic in hardware.nics if usable(nic)]
    for gpu in hardware.gpus:
        ranks = {nic.name: DISTANCES.index(nic_distance(gpu, nic)) for nic in ready}
        nearest = index.nearest(gpu)
        assert nearest.names == tuple(name for name, rank in ranks.items() if rank == min(ranks.values()))
        assert nearest.distance == (DISTANCES[min(ranks.values())] if ranks else None)


@settings(deadline=None, max_examples=200)
@given(machines(), st.integers(0, 11))
def test_nearest_unshared_and_always_the_same(hardware: Hardware, decodes: int) -> None:
    count = len(hardware.gpus)
    if count < 2:
        return
    text = pools("{}", f"{{workers: {1 + decodes % (count - 1)}}}")
    plan = made(text, on=hardware)
    check(hardware, plan.workers())
    assert plan == made(text, on=hardware)
    every = [index for worker in plan.workers() for index in worker.gpus]
    assert len(every) == len(set(every))
    cores = [core for worker in plan.workers() if worker.cpus for core in parse_cpu_list(worker.cpus)]
    assert len(cores) == len(set(cores)) <= max(0, len(hardware.cores) - 2)
    assert set(cores) <= set(hardware.cores)
    ports = [port for worker in plan.processes for port in worker.ports.values()]
    assert len(ports) == len(set(ports))


def test_nobody_takes_a_second_nic_while_another_has_none() -> None:
    few, more = Nearest(names=("a", "b"), distance="PIX"), Nearest(names=("a", "b", "c"), distance="NODE")
    assert spread([more, few, more], {}) == [("b",), ("a",), ("c",)]
    assert spread([few], {}) == [("a", "b")]


@given(st.integers(1, 9), st.integers(1, 9))
def test_an_even_spread(gpus: int, nics: int) -> None:
    names = tuple(f"n{at}" for at in range(nics))
    given_ = spread([Nearest(names=names, distance="PIX")] * gpus, {})
    load = Counter(name for some in given_ for name in some)
    assert max(load.values()) == math.ceil(gpus / nics)
    assert {len(some) for some in given_} == {max(1, nics // gpus)}


def test_a_nic_that_pins_use_is_passed_over() -> None:
    nearest = Nearest(names=("a", "b"), distance="PIX")
    assert spread([nearest], {"a": 1}) == [("b",)]
    assert spread([nearest] * 2, {"a": 1}) == [("a",), ("b",)]
    assert spread([nearest] * 2, {"a": 2}) == [("b",), ("b",)]
