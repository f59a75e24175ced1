"""`nvidia-smi topo -m` as pasted: what is read from it, in every style, and what is refused."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynctl.errors import UsageError
from dynctl.hardware.distance import nic_distance
from dynctl.hardware.matrix import ASSUMED, UNNAMED, parse
from dynctl.hardware.values import Hardware, nvlink_width
from tests.unit.hardware.matrices import HGX, PAIRS, matrix

HGX_TEXT = HGX.read_text()


def near(machine: Hardware, wanted: str = "PIX") -> dict[int, list[str]]:
    """NICs at that distance from each GPU."""
    return {gpu.index: [nic.name for nic in machine.nics if nic_distance(gpu, nic) == wanted] for gpu in machine.gpus}


def test_eight_gpus_with_a_nic_each() -> None:
    machine = parse(HGX_TEXT, "hgx.txt")
    assert machine.source == "nvidia-smi topo -m"
    assert near(machine) == {index: [f"mlx5_{index}"] for index in range(8)}
    assert near(machine, "SYS")[0] == ["mlx5_4", "mlx5_5", "mlx5_6", "mlx5_7"]
    assert {nvlink_width(a, b) for a in machine.gpus for b in machine.gpus if a != b} == {18}
    assert [gpu.numa for gpu in machine.gpus] == [0] * 4 + [1] * 4
    assert machine.gpus[4].cores == (*range(48, 96), *range(144, 192))
    assert [(node.index, len(node.cores)) for node in machine.numa_nodes] == [(0, 96), (1, 96)]
    assert machine.cores == tuple(range(192))
    assert [nic.numa for nic in machine.nics] == [0] * 4 + [1] * 4
    assert all(nic.active_ports == (1,) for nic in machine.nics)
    assert machine.notes == (ASSUMED,)


def test_what_a_matrix_does_not_tell_is_clearly_not_known() -> None:
    gpu = parse(HGX_TEXT, "hgx.txt").gpus[3]
    assert (gpu.uuid, gpu.name, gpu.memory_bytes, gpu.pci_path) == ("GPU-unknown-3", "", 0, ())


def test_pairs_share_two_nics() -> None:
    machine = parse(PAIRS.read_text(), "pairs.txt")
    assert near(machine) == {index: [f"mlx5_{index // 2 * 2}", f"mlx5_{index // 2 * 2 + 1}"] for index in range(8)}
    assert nvlink_width(machine.gpus[0], machine.gpus[7]) == 8


STYLES = {
    "aligned spaces": lambda text: text.expandtabs(8),
    "single spaces": lambda text: re.sub(r"[\t ]+", " ", text),
    "colours": lambda text: "\x1b[4m" + text.replace("\n", "\x1b[0m\n", 1).replace("NV18", "\x1b[32mNV18\x1b[0m"),
    "Windows lines": lambda text: text.replace("\n", "\r\n"),
    "a prompt and a warning above": lambda text: "$ nvidia-smi topo -m\nwarning: persistence mode\n\n" + text,
    "indented": lambda text: "".join(f"    {line}\n" for line in text.splitlines()),
    "blank lines between": lambda text: text.replace("\n", "\n\n"),
    "two tabs": lambda text: text.replace("\t0\tN/A", "\t0\t\tN/A").replace("\t1\tN/A", "\t1\t\tN/A"),
    "an unknown column": lambda text: text.replace("GPU NUMA ID", "GPU NUMA ID\tC2C Peer").replace("N/A", "N/A\t-"),
    "cells that ran together": lambda text: text.replace("PIX\tNODE", "PIXNODE").replace("SYS\tSYS\tSYS", "SYSSYSSYS"),
    "a prompt below": lambda text: text + "\nuser@host:~$ \n",
}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_gives_the_same_machine(style: str) -> None:
    text = STYLES[style](HGX_TEXT)
    assert text != HGX_TEXT
    assert parse(text, "x") == parse(HGX_TEXT, "x")


def test_nics_named_directly_by_an_older_driver() -> None:
    text = matrix(2, ["mlx5_0", "mlx5_bond_0"], lambda a, b: "SOC" if b == "mlx5_bond_0" else "PHB", legend=False,
                  columns=["CPU Affinity"], affinity=lambda gpu: ["0,2,4,6"])  # fmt: skip
    machine = parse(text, "x")
    assert machine.gpus[0].nic_distances == {"mlx5_0": "PHB", "mlx5_bond_0": "SYS"}
    assert machine.gpus[0].gpu_distances == {1: "PHB"}
    assert [(gpu.cores, gpu.numa, gpu.nvlinks) for gpu in machine.gpus] == [((0, 2, 4, 6), None, {})] * 2
    assert [nic.bond for nic in machine.nics] == [None, "mlx5_bond_0"]
    assert machine.notes == (ASSUMED,)


def test_without_a_legend_the_names_are_said_to_be_no_names() -> None:
    machine = parse(HGX_TEXT.split("NIC Legend")[0], "x")
    assert [nic.name for nic in machine.nics] == [f"NIC{at}" for at in range(8)]
    assert machine.notes == (ASSUMED, UNNAMED)


def test_mig_rows_and_columns_are_left_out() -> None:
    def cell(a: str, b: str) -> str:
        return "PIX" if a == "GPU0" or b.startswith("MIG") else "SYS"

    text = matrix(2, ["MIG0", "MIG1", "mlx5_0"], cell, legend=False)
    for pasted in (text, "\n".join(line for line in text.split("\n") if not line.startswith("MIG"))):
        machine = parse(pasted, "x")
        assert [gpu.index for gpu in machine.gpus] == [0, 1]
        assert [nic.name for nic in machine.nics] == ["mlx5_0"]
        assert [gpu.nic_distances for gpu in machine.gpus] == [{"mlx5_0": "PIX"}, {"mlx5_0": "SYS"}]


def test_nvidia_smi_l_pasted_with_it_gives_names_uuids_and_slices() -> None:
    listing = (
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-11111111-2222-3333-4444-555555555555)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-aaaaaaaa-2222-3333-4444-555555555555)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-bbbbbbbb-2222-3333-4444-555555555555)\n"
    )
    for text in (listing + HGX_TEXT, HGX_TEXT + "\n" + listing):
        first, second = parse(text, "x").gpus[:2]
        assert (first.name, first.uuid[:12], first.mig_enabled) == ("NVIDIA A100-SXM4-80GB", "GPU-11111111", True)
        assert [(part.index, part.profile, part.uuid[:6]) for part in first.mig] == [
            (0, "3g.40gb", "MIG-aa"), (1, "3g.40gb", "MIG-bb")]  # fmt: skip
        assert (second.uuid, second.mig) == ("GPU-unknown-1", ())


def test_storage_nics_pxb_and_numbers_that_do_not_follow() -> None:
    def cell(a: str, b: str) -> str:
        if b.startswith("GPU"):
            return "PXB" if int(a[3:]) // 2 == int(b[3:]) // 2 else "NODE"
        return "NODE" if b == "mlx5_9" else "PXB" if int(b[5:]) == 3 - int(a[3:]) else "NODE"

    machine = parse(matrix(4, ["mlx5_9", "mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"], cell), "x")
    assert near(machine, "PXB") == {0: ["mlx5_3"], 1: ["mlx5_2"], 2: ["mlx5_1"], 3: ["mlx5_0"]}
    assert machine.gpus[0].gpu_distances == {1: "PXB", 2: "NODE", 3: "NODE"}


def test_a_single_gpu_and_no_nic() -> None:
    machine = parse(matrix(1, [], lambda a, b: "SYS", affinity=lambda gpu: ("0-7", "N/A", "N/A")), "x")
    assert (len(machine.gpus), machine.nics, machine.gpus[0].numa, machine.numa_nodes) == (1, (), None, ())
    assert machine.cores == tuple(range(8))


def test_a_gpu_near_two_nodes_has_none() -> None:
    machine = parse(matrix(1, ["mlx5_0"], lambda a, b: "PHB", affinity=lambda gpu: ("0-7", "0-1", "N/A")), "x")
    assert (machine.gpus[0].numa, machine.nics[0].numa) == (None, None)


def test_hundreds_of_gpus() -> None:
    machine = parse(matrix(200, ["mlx5_0"], lambda a, b: "NV4" if b.startswith("GPU") else "SYS"), "x")
    assert len(machine.gpus[7].nvlinks) == 199


def line_of(text: str, word: str) -> int:
    return next(number for number, line in enumerate(text.split("\n"), 1) if line.startswith(word))


ROWS = HGX_TEXT.split("\n")
BAD = {
    "no matrix": ("Mon Nov 28\n+----+\n| NVIDIA-SMI 580 |\n", "no topology matrix", None),
    "empty words": ("GPU\n\n\n", "no topology matrix", None),
    "cut after three rows": ("\n".join(ROWS[:4]), "cut off", 4),
    "cut within a row": (HGX_TEXT[: HGX_TEXT.index("GPU5", 200) + 12], "row GPU5 has 1 cells", 7),
    "only a header": (ROWS[0], "cut off", None),
    "a row is missing": (HGX_TEXT.replace(ROWS[3] + "\n", ""), "column GPU2, but no such row", None),
    "a row twice": ("\n".join([*ROWS[:4], ROWS[3], *ROWS[4:]]), "two rows GPU2", 5),
    "a row without a column": (HGX_TEXT.replace("\nNIC7\t", "\nNIC8\t"), "row NIC8 has no column", 17),
    "a column twice": (HGX_TEXT.replace("\tGPU1\t", "\tGPU0\t", 1), "two columns GPU0", 1),
    "an unknown cell": (HGX_TEXT.replace("NV18", "XGMI", 1), "`XGMI` under GPU1", 2),
    "ragged: a cell less": (HGX_TEXT.replace("GPU3\tNV18\t", "GPU3\t", 1), "row GPU3 has 15 cells", 5),
    "ragged: a cell more": (HGX_TEXT.replace("GPU3\tNV18\t", "GPU3\tNV18\tNV18\t", 1), "row GPU3 has more cells", 5),
    "ragged: a NIC's cell more": (HGX_TEXT.replace("NIC0\tPIX", "NIC0\tPIX\tSYS", 1), "row NIC0 has more", 10),
    "asymmetric": (HGX_TEXT.replace("GPU1\tNV18", "GPU1\tSYS", 1), "GPU0 says NV18 of GPU1, GPU1 says SYS", 2),
    "asymmetric widths": (HGX_TEXT.replace("GPU7\tNV18", "GPU7\tNV12", 1), "GPU7 says NV12", 2),
    "no X on the diagonal": (HGX_TEXT.replace(" X ", "SYS", 1), "X under GPU0", 2),
    "X elsewhere": (HGX_TEXT.replace("GPU0\t X \tNV18", "GPU0\t X \tX", 1), "X under GPU0", 2),
    "zero links": (HGX_TEXT.replace("NV18", "NV0", 1), "`NV0`", 2),
    "cores that are none": (HGX_TEXT.replace("0-47,96-143", "0-47;96", 1), "`0-47;96` is no list of cores", 2),
    "too many cores": (HGX_TEXT.replace("0-47,96-143", "0-99999", 1), "no list of cores", 2),
    "cores backwards": (HGX_TEXT.replace("0-47,96-143", "47-0", 1), "no list of cores", 2),
    "a node that is none": (HGX_TEXT.replace("143\t0\tN/A", "143\tzero\tN/A", 1), "`zero` is no NUMA node", 2),
    "two NICs of one name": (HGX_TEXT.replace("NIC7: mlx5_7", "NIC7: mlx5_0"), "same name", None),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_add_up_is_refused_with_its_line(case: str) -> None:
    text, words, line = BAD[case]
    assert text != HGX_TEXT
    with pytest.raises(UsageError) as caught:
        parse(text, "m.txt")
    assert words in caught.value.cause
    assert caught.value.fix
    assert caught.value.where
    assert caught.value.where.startswith("m.txt")
    if line is not None:
        assert caught.value.where == f"m.txt:{line}"


PIECES = [
    *("GPU0", "GPU1", "GPU8", "NIC0", "mlx5_0", "MIG0", " X ", "NV18", "NV", "PIX", "NODENODE", "N/A", "\t", "\n", " "),
    *("0-3", "9-1", "99999999999999", "\x1b[4m", "\x1b[", "Legend:", "NIC0: mlx5_1", "CPU Affinity", "٣", "\x00"),
    *("\u2028", "GPU 0: A (UUID: GPU-1)", "  MIG 1g.5gb Device 0: (UUID: MIG-1)"),
]


def parses_or_is_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse(text, "x")


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=60).map("".join))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_is_anything_but_read_or_refused(text: str) -> None:
    parses_or_is_refused(text)


@given(st.data())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_no_damage_to_a_matrix_is_anything_but_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([HGX_TEXT, HGX_TEXT.expandtabs(), matrix(2, ["mlx5_0"], lambda a, b: "PIX")]))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 40))
        text = text[:start] + data.draw(st.sampled_from(["", *PIECES]) | st.text(max_size=3)) + text[end:]
    parses_or_is_refused(text)
