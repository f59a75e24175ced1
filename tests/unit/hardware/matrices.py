"""Matrices as `nvidia-smi topo -m` writes them, made from distances: machines that no file here has. All invented."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

TOPOLOGIES = Path(__file__).parents[2] / "data/topologies"
HGX = TOPOLOGIES / "hgx-8gpu-8nic.txt"
PAIRS = TOPOLOGIES / "a800-8gpu-8nic-pairs.txt"
COLUMNS = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")


def matrix(
    gpus: int,
    nics: Sequence[str],
    cell: Callable[[str, str], str],
    *,
    columns: Sequence[str] = COLUMNS,
    affinity: Callable[[int], Sequence[str]] = lambda gpu: ("0-31", "0", "N/A"),
    legend: bool = True,
) -> str:
    """The text. `nics`: device names, columns NIC0, NIC1, ... with a legend, or the names themselves without one.

    `cell`: what stands between two devices (`GPU0`, `mlx5_0`), asked once for each pair, GPUs first.
    """
    names = [f"GPU{at}" for at in range(gpus)] + list(nics)
    shown = [f"GPU{at}" for at in range(gpus)] + [f"NIC{at}" if legend else name for at, name in enumerate(nics)]
    lines = ["\t" + "\t".join([*shown, *columns])]
    for row, name in enumerate(names):
        cells = [
            " X " if row == column else cell(*((name, other) if row < column else (other, name)))
            for column, other in enumerate(names)
        ]
        rest = affinity(row)[: len(columns)] if row < gpus else [""] * len(columns)
        lines.append("\t".join([shown[row], *cells, *rest]))
    lines += ["", "Legend:", "", "  X    = Self", "  SYS  = Connection traversing PCIe as well as the SMP interconnect"]
    if legend and nics:
        lines += ["", "NIC Legend:", "", *(f"  NIC{at}: {name}" for at, name in enumerate(nics))]
    return "\n".join(lines) + "\n"
