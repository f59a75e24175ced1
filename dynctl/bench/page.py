"""`report.html`: one page that loads nothing from elsewhere, and in which everything is escaped."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

from dynctl.bench import charts
from dynctl.bench.document import Document
from dynctl.bench.measure import Arm
from dynctl.bench.sample import Sample, itl_ms, ttft_ms
from dynctl.bench.summary import Summary
from dynctl.bench.table import LATENCIES, THROUGHPUTS
from dynctl.bench.words import metric_name
from dynctl.ui.figures import UNKNOWN, format_clock, format_ms
from dynctl.ui.page import page_template

FOREST: tuple[str, ...] = (
    "ttft_p50",
    "ttft_p90",
    "ttft_p99",
    "itl_p50",
    "itl_p90",
    "itl_p99",
    "inter_chunk_p99",
    "request_latency_p50",
)
FOREST += ("requests_per_s", "output_tokens_per_s", "goodput")


def page(document: Document, arms: Sequence[Arm]) -> str:
    """The page of a result. At most the first two layouts are drawn; of a sweep, each load is in the table."""
    template = page_template("dynctl.bench", "page.html")
    drawn = [arm for arm in arms if arm.rounds][:2]
    split = [
        (
            run.layout,
            {
                "queue": run.split.queue,
                "prefill": run.split.prefill,
                "hand-over": run.split.handover,
                "frontend to client": run.split.frontend_to_client,
            },
        )
        for run in document.runs[:2]
        if run.split is not None
    ]
    return template.render(
        doc=document,
        names=[arm.label for arm in drawn],
        when=format_clock(document.at, utc=True),
        forest=charts.forest(rows) if (rows := _forest(document)) and drawn else None,
        rows=[row for run in document.runs for row in _rows(run.layout, run.load, run.metrics)],
        charts=[
            ("TTFT: share of requests up to", _ecdf(drawn, "ttft_ms")),
            ("ITL per request: share up to", _ecdf(drawn, "itl_ms")),
            ("Gaps between chunks: share up to", _ecdf(drawn, "inter_chunk_ms")),
            ("TTFT over time", _timeline(drawn, ttft_ms)),
            ("ITL over time", _timeline(drawn, itl_ms)),
        ],
        split=charts.stacked(split) if split else None,
        parts=[
            f"{layout}: {', '.join(f'{name} {format_ms(value)}' for name, value in found.items() if value is not None)}"
            for layout, found in split
        ],
        command=shlex.join(document.command),
    )


def _ecdf(arms: Sequence[Arm], metric: str) -> str:
    return charts.ecdf([[value for part in arm.rounds for value in part.values(metric)] for arm in arms])


def _timeline(arms: Sequence[Arm], get: Callable[[Sample], float | None]) -> str:
    measured = [[sample for part in arm.rounds for sample in part.measured] for arm in arms]
    first = min((sample.sent_s for samples in measured for sample in samples), default=0.0)
    points = [
        [(sample.sent_s - first, value) for sample in samples if (value := get(sample)) is not None]
        for samples in measured
    ]
    return charts.timeline(points)


def _forest(document: Document) -> list[tuple[str, float, float, float, str]]:
    marks = {"better": "better", "worse": "worse"}
    return [
        (metric_name(key), found.ratio, found.ci95[0], found.ci95[1], marks.get(found.verdict, "same"))
        for key in FOREST
        if (found := document.comparison.get(key)) is not None and found.ratio is not None and found.ci95 is not None
    ]


def _rows(layout: str, load: str, metrics: dict[str, Summary | float | None]) -> list[list[str]]:
    out = []
    for name, key in LATENCIES:
        found = metrics.get(key)
        if isinstance(found, Summary):
            figures = (found.p50, found.p90, found.p99, found.avg, found.max)
            out.append([layout, load, name, *(format_ms(value) for value in figures)])
    for name, key in THROUGHPUTS:
        value = metrics.get(key)
        if isinstance(value, float):
            out.append([layout, load, name, *[UNKNOWN] * 3, f"{value:.2f}", UNKNOWN])
    return out
