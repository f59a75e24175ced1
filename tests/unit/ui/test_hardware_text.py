"""Machines as text."""

from __future__ import annotations

import pytest

from dynctl.hardware import imports
from dynctl.hardware.values import Gpu, Hardware, MigDevice
from dynctl.ui.hardware import WIDEST_MATRIX, hardware_text
from tests.unit.hardware.matrices import HGX, TOPOLOGIES, matrix
from tests.unit.plan.machines import ACTIVE, INACTIVE, cpu, gpus


def matrix_of(text: str) -> dict[str, list[str]]:
    """The cells of the distance matrix by row."""
    rows = text[text.index("\n        GPU0") :].split("\n")[2:]
    return {row.split()[0]: row.split()[1:] for row in rows if row.startswith(("GPU", "mlx5_"))}


def test_a_matrix_comes_out_as_it_went_in() -> None:
    shown = matrix_of(hardware_text(imports.load(HGX)))
    names = {f"NIC{at}": f"mlx5_{at}" for at in range(8)}
    wanted = {
        names.get(row := line.split()[0], row): [cell.strip() for cell in line.split("\t")[1:9]]
        for line in HGX.read_text().splitlines()
        if line.startswith(("GPU", "NIC")) and "\t" in line
    }
    assert shown == wanted
    assert len(shown) == 16


def test_a_node_of_eight_gpus_fits_80_columns() -> None:
    lines = hardware_text(imports.load(HGX)).splitlines()
    assert max(len(line) for line in lines if not line.startswith("note:")) <= 80


def test_what_is_not_known_is_a_dash() -> None:
    text = hardware_text(imports.load(HGX))
    assert "nvidia-smi topo -m  8 GPUs  8 NICs  cores 0-191\n" in text
    assert "\n3    –     –       0     –    18 to 7 peers\n" in text
    assert "\n3    GPU-unknown-3  –\n" in text
    assert "\nmlx5_3  1 ACTIVE  0     –    –        kv\n" in text
    assert "note: a topology matrix tells no port state" in text


def test_a_discovered_machine() -> None:
    text = hardware_text(gpus(2, nics=(ACTIVE, INACTIVE), busy=(1,), nvlink=False))
    for words in ("NVIDIA H200", "141 GiB", "0000:10:00.0", "pid 4001", "mlx5_1  none", "nobody"):
        assert words in text
    text = hardware_text(cpu())
    assert "CMA allowed (Yama ptrace_scope is 1)" in text
    assert "GPU" not in text.replace("0 GPUs", "")


def test_a_socket_interface_is_said_to_be_one() -> None:
    text = hardware_text(imports.load(TOPOLOGIES / "hgx-h200-dump.xml"))
    assert "unusable: a socket interface" in text
    assert "400 Gb/s" in text


def test_slices_and_lost_gpus() -> None:
    part = MigDevice(index=0, uuid="MIG-1", profile="3g.40gb")
    machine = Hardware(gpus=(Gpu(index=0, uuid="GPU-1", name="A100", memory_bytes=0, mig=(part,)),
                             Gpu(index=1, uuid="GPU-2", name="A100", memory_bytes=0, lost="GPU is lost")))  # fmt: skip
    text = hardware_text(machine)
    assert "A100, 1 MIG slices" in text
    assert "GPU is lost" in text


@pytest.mark.parametrize("count", [WIDEST_MATRIX, WIDEST_MATRIX + 1])
def test_a_matrix_that_nobody_can_read_is_left_out(count: int) -> None:
    text = hardware_text(imports.parse(matrix(count, [], lambda a, b: "NODE").encode(), "x"))
    assert ("are left out here" in text) == (count > WIDEST_MATRIX)
