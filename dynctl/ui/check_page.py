"""The report of `check-rdma` as one HTML file: nothing is loaded from elsewhere, and everything in it is escaped."""

from __future__ import annotations

from collections.abc import Sequence

import dynctl
from dynctl.fabric.conclude import by_device, worst_pairs
from dynctl.fabric.report import PairReport, Report
from dynctl.hardware.distance import gpu_distance, nic_distance
from dynctl.hardware.values import Gpu, Hardware, nvlink_width
from dynctl.ui.check_text import matrix, pair_figures, verdict_line
from dynctl.ui.figures import UNKNOWN, format_clock, format_gigabytes_per_s, format_s
from dynctl.ui.page import page_template
from dynctl.ui.words import verdict_words

TEMPLATE = "check_page.html"


def check_page(report: Report, hardware: Hardware | None, at: float) -> str:
    """The page. `hardware`: for the distances of GPUs and NICs; `at`: wall time of the run in seconds."""
    template = page_template("dynctl.ui", TEMPLATE, rate=format_gigabytes_per_s, seconds=format_s)
    return template.render(
        report=report,
        headline=verdict_line(report),
        when=format_clock(at, utc=True),
        version=dynctl.__version__,
        devices=by_device(report.checks),
        counts={word: sum(row.status == word for row in report.checks) for word in ("fail", "warn", "pass", "skip")},
        pairs=[
            (pair, verdict_words(pair.verdict, pair.evidence), list(pair_figures(pair))) for pair in _ranked(report)
        ],
        heat=heat_map(report.pairs),
        distances=distance_matrix(hardware) if hardware else None,
        unknown=UNKNOWN,
    )


def heat_map(pairs: Sequence[PairReport]) -> tuple[list[str], list[tuple[str, list[PairReport | None]]]] | None:
    """Targets, and for each source its worst proof with each target; None without pairs."""
    if not pairs:
        return None
    sources, targets, cells = matrix(pairs)
    return targets, [(source, [cells.get((source, target)) for target in targets]) for source in sources]


def distance_matrix(hardware: Hardware) -> tuple[list[str], list[tuple[str, list[str]]]] | None:
    """GPUs against GPUs and NICs: `NV18` for NVLinks, else PCIe distances as nvidia-smi names them; None: no GPU."""
    if not hardware.gpus:
        return None
    columns = [f"GPU {gpu.index}" for gpu in hardware.gpus] + [nic.name for nic in hardware.nics]
    rows = []
    for gpu in hardware.gpus:
        cells = [_between(gpu, other) for other in hardware.gpus]
        rows.append((f"GPU {gpu.index}", cells + [nic_distance(gpu, nic) for nic in hardware.nics]))
    return columns, rows


def _between(a: Gpu, b: Gpu) -> str:
    if a.index == b.index:
        return "X"
    width = nvlink_width(a, b)
    return f"NV{width}" if width else gpu_distance(a, b) or UNKNOWN


def _ranked(report: Report) -> list[PairReport]:
    return worst_pairs(report.pairs)
