"""NCCL topology XML: dumps and vendors' files, and what is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.errors import UsageError
from dynctl.hardware import nccl_xml
from dynctl.hardware.distance import gpu_distance, nic_distance
from dynctl.hardware.nccl_xml import GUESSED_PORTS, NO_NVLINKS, OVERLAPPING
from dynctl.hardware.values import Hardware, nvlink_width
from dynctl.hardware.xml_tree import MAX_DEPTH, MAX_ELEMENTS
from tests.unit.hardware.matrices import TOPOLOGIES

DUMP = (TOPOLOGIES / "hgx-h200-dump.xml").read_text()


def machine(name: str) -> Hardware:
    return nccl_xml.parse((TOPOLOGIES / name).read_bytes(), name)


def system(body: str) -> bytes:
    return f'<system version="1"><cpu numaid="0" affinity="ff">{body}</cpu></system>'.encode()


def gpu(dev: int, bus: str = "0000:18:00.0", inner: str = "") -> str:
    return f'<pci busid="{bus}" class="0x030200"><gpu dev="{dev}" sm="90">{inner}</gpu></pci>'


def test_a_dump_of_an_nvswitch_machine() -> None:
    found = machine("hgx-h200-dump.xml")
    assert found.source == "nccl xml"
    assert [gpu.index for gpu in found.gpus] == list(range(8))
    near = {gpu.index: [nic.name for nic in found.nics if nic_distance(gpu, nic) == "PIX"] for gpu in found.gpus}
    assert near == {index: [f"mlx5_{number}"] for index, number in enumerate((0, 3, 2, 1, 4, 7, 6, 5))}
    assert nic_distance(found.gpus[0], found.nics[1]) == "NODE"
    assert nic_distance(found.gpus[0], found.nics[-1]) == "SYS"
    assert gpu_distance(found.gpus[0], found.gpus[7]) == "SYS"
    assert {nvlink_width(a, b) for a in found.gpus for b in found.gpus if a != b} == {18}
    assert found.gpus[0].compute_capability == "9.0"
    assert found.gpus[0].uuid == "GPU-unknown-0"
    assert found.gpus[4].cores == (*range(48, 96), *range(144, 192))
    assert [(node.index, len(node.cores)) for node in found.numa_nodes] == [(0, 96), (1, 96)]
    nic = found.nics[0]
    assert (nic.pci, nic.numa, nic.active_ports, nic.rate_gigabits_per_s) == ("0000:19:00.0", 0, (1,), 400.0)
    assert nic.ports[0].link_layer == "InfiniBand"


def test_a_socket_interface_carries_no_kv() -> None:
    nics = {nic.name: nic for nic in machine("hgx-h200-dump.xml").nics}
    assert (nics["eth0"].use, nics["mlx5_0"].use) == ("unusable", "kv")
    assert "no RDMA device" in (nics["eth0"].use_reason or "")
    assert not machine("nvlink-pairs.xml").has_rdma()


def test_direct_nvlinks_name_their_peer() -> None:
    gpus = machine("nvlink-pairs.xml").gpus
    assert [gpu.nvlinks for gpu in gpus] == [{1: 12}, {0: 12}, {3: 12}, {2: 12}]
    assert [gpu.numa for gpu in gpus] == [0, 1, 2, 3]


def test_a_vendors_file_without_devices() -> None:
    found = machine("cloud-no-devices.xml")
    assert [gpu.pci for gpu in found.gpus][:5] == [f"{bus}:00:00.0" for bus in ("0001", "0002", "0003", "0004", "000b")]
    near = [[nic.name for nic in found.nics if nic_distance(gpu, nic) == "PIX"] for gpu in found.gpus]
    assert near == [[f"NIC{index // 2 * 2}", f"NIC{index // 2 * 2 + 1}"] for index in range(8)]
    assert {GUESSED_PORTS, NO_NVLINKS, OVERLAPPING} <= set(found.notes)
    assert (found.cores, [node.cores for node in found.numa_nodes]) == ((), [()] * 4)


def test_two_levels_of_switches() -> None:
    found = machine("efa-dump.xml")
    assert [[nic.name for nic in found.nics if nic_distance(gpu, nic) == "PIX"] for gpu in found.gpus] == [
        [f"rdmap{number}s0" for number in range(76, 80)],
        [f"rdmap{number}s0" for number in range(92, 96)],
    ]
    inner = "".join(
        f'<pci busid="0000:{bus}:00.0" class="0x060400">{device}</pci>'
        for bus, device in (
            ("20", gpu(0, "0000:21:00.0")),
            ("30", '<pci busid="0000:31:00.0" class="0x020000"><nic><net name="mlx5_0" port="1"/></nic></pci>'),
        )
    )
    across = nccl_xml.parse(system(f'<pci busid="0000:10:00.0" class="0x060400">{inner}</pci>'), "x")
    assert nic_distance(across.gpus[0], across.nics[0]) == "PXB"


def test_merged_devices_are_several_and_a_devices_ports_are_one() -> None:
    nets = '<net name="mlx5_0+mlx5_1" port="1" speed="800000"/><net name="mlx5_0" port="2" speed="-1"/>'
    found = nccl_xml.parse(system(f'<pci busid="0000:31:00.0" class="0x020000"><nic>{nets}</nic></pci>'), "x")
    assert [(nic.name, nic.active_ports) for nic in found.nics] == [("mlx5_0", (1, 2)), ("mlx5_1", (1,))]
    assert [port.rate_gigabits_per_s for port in found.nics[0].ports] == [800.0, None]


def test_links_to_a_switch_of_another_tray_and_to_gpus_that_are_not_dumped() -> None:
    links = '<nvlink target="fffffff:ff:ff.0" count="18" tclass="0x068000"/>'
    links += '<nvlink target="0000:99:00.0" count="4" tclass="0x030200"/>'
    (only,) = nccl_xml.parse(system(gpu(0, inner=links)), "x").gpus
    assert (only.nvswitch_links, only.nvlinks) == (18, {})


def test_numa_node_minus_one_is_none() -> None:
    data = system(gpu(0)).replace(b'numaid="0"', b'numaid="-1"')
    found = nccl_xml.parse(data, "x")
    assert (found.gpus[0].numa, found.gpus[0].cores, found.numa_nodes) == (None, tuple(range(8)), ())


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
BAD = {
    "not well-formed": (b"<system><cpu>", "not well-formed", 1),
    "cut off": (DUMP[:3000].encode(), "not well-formed", None),
    "another document": (b"<html/>", "no NCCL topology", 1),
    "a graph": (b"<graphs version='1'/>", "no NCCL topology", 1),
    "nvidia-smi -q -x": (b"<nvidia_smi_log/>", "no NCCL topology", 1),
    "another version": (b'\n<system version="2"></system>', "version 2", 2),
    "nothing in it": (b'<system version="1"/>', "neither a GPU nor a NIC", 1),
    "places without a class": (system('<pci busid="0000:00:16.0"/>'), "neither a GPU nor a NIC", 1),
    "an external entity": (
        b'<!DOCTYPE s [<!ENTITY e SYSTEM "file:///etc/passwd">]><system>&e;</system>', "document type", 1),
    "an external DTD": (b'<!DOCTYPE s SYSTEM "http://127.0.0.1/x.dtd"><system/>', "document type", 1),
    "a billion laughs": (
        f'<!DOCTYPE s [<!ENTITY l0 "ha">{LAUGHS}]><system>&l11;</system>'.encode(), "document type", 1),
    "an entity of nobody": (b"<system>&nobody;</system>", "not well-formed", 1),
    "a million nodes": (b"<system>" + b"<cpu/>" * 1_000_000 + b"</system>", f"more than {MAX_ELEMENTS}", 1),
    "a deep one": (b"<system>" + b"<pci>" * 100_000, f"deeper than {MAX_DEPTH}", 1),
    "an encoding of nobody": (b'<?xml version="1.0" encoding="klingon"?><system/>', "not readable", None),
    "two hosts": (
        b'<system><cpu numaid="0" host_hash="0x1"/><cpu numaid="0" host_hash="0x2"/></system>', "2 hosts", 1),
    "two GPUs of one dev": (system(gpu(0) + gpu(0, "0000:19:00.0")), "same `dev`", None),
    "two GPUs at one address": (system(gpu(0) + gpu(1)), "same `busid`", None),
    "a dev that is none": (system(gpu(0).replace('"0"', '"zero"')), "dev='zero'", 1),
    "a negative dev": (system(gpu(-1)), "negative", None),
    "no busid": (system('<pci class="0x030200"/>'), "no PCI bus id", 1),
    "a class that is none": (system('<pci busid="0000:18:00.0" class="GPU"/>'), "class='GPU'", 1),
    "an affinity that is none": (system(gpu(0)).replace(b'"ff"', b'"0-47"'), "no mask of cores", 1),
    "an affinity without end": (system(gpu(0)).replace(b'"ff"', b'"' + b"f" * 5000 + b'"'), "no mask of cores", 1),
    "a net without a name": (system("<nic><net port='1'/></nic>"), "no usable name", 1),
    "a net with an option's name": (system("<nic><net name='--help'/></nic>"), "no usable name", 1),
    "a million links": (
        system(gpu(0, inner='<nvlink target="0000:19:00.0" count="1000000"/>')), "small number", 1),
    "a link without a target": (system(gpu(0, inner='<nvlink count="1"/>')), "no PCI bus id", 1),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_topology_is_refused_with_its_line(case: str) -> None:
    data, words, line = BAD[case]
    with pytest.raises(UsageError) as caught:
        nccl_xml.parse(data, "t.xml")
    assert words in caught.value.cause
    assert (caught.value.where or "").startswith("t.xml")
    if line is not None:
        assert caught.value.where == f"t.xml:{line}"


def test_nothing_is_opened_for_an_entity(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(UsageError):
        nccl_xml.parse(BAD["an external entity"][0], "x")


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_no_damage_to_a_dump_is_anything_but_read_or_refused(data: st.DataObject) -> None:
    text = DUMP
    words = ["", "<", ">", "/>", '"', "0x", "-1", "<gpu/>", "<nic>", "<net/>", "&amp;", "999999999999999999999", "٣"]
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 20))
        text = text[:start] + data.draw(st.sampled_from(words) | st.text(max_size=3)) + text[end:]
    with contextlib.suppress(UsageError):
        nccl_xml.parse(text.encode(errors="replace"), "x")
