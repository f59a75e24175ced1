"""The result as text that reads at 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from dynctl.bench.document import ArmResult, Document
from dynctl.bench.summary import Summary
from dynctl.bench.verdict import Verdict
from dynctl.counted import counted
from dynctl.ui.figures import UNKNOWN, clean, format_bytes, format_gigabytes_per_s, format_ms

WIDTH = 80
LATENCIES = (
    ("TTFT", "ttft_ms"),
    ("TTST", "ttst_ms"),
    ("ITL", "itl_ms"),
    ("inter-chunk", "inter_chunk_ms"),
    ("request", "request_latency_ms"),
)
THROUGHPUTS = (("requests/s", "requests_per_s"), ("tokens/s", "output_tokens_per_s"), ("goodput", "goodput"))


def text(document: Document) -> list[str]:
    """The lines: each layout's figures, the comparison, what was said, what is wrong."""
    lines: list[str] = []
    for arm in document.runs:
        lines += [*_arm(arm), ""]
    if document.comparison:
        names = document.runs[0].layout, document.baseline or ""
        lines += [*comparison_lines(*names, document.comparison), ""]
    lines += [line for said in document.says for line in wrapped(said)]
    lines += [line for note in document.notes for line in wrapped(f"note: {note}")]
    if document.partial:
        lines += wrapped(f"PARTIAL: interrupted while {document.interrupted_in or 'measuring'}")
    for problem in document.problems:
        lines += wrapped(f"INVALID: {problem.what}")
        lines += wrapped(f"fix {problem.fix}", indent="  ")
    while lines and not lines[-1]:
        lines.pop()
    return lines


def wrapped(line: str, indent: str = "") -> list[str]:
    """Lines of at most 80 columns; further ones are indented."""
    return textwrap.wrap(clean(line), WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ")


def _arm(arm: ArmResult) -> Iterator[str]:
    hardware = counted(arm.gpus, "GPU") if arm.gpus else counted(arm.workers, "worker") if arm.workers else ""
    requests = f"{counted(arm.requests, 'request')} in {counted(arm.rounds, 'round')}"
    yield f"{clean(arm.layout)[:40]}  {', '.join(filter(None, (arm.load, hardware, requests)))}"
    yield f"  {'':<14}{'p50':>10}{'p90':>10}{'p99':>10}{'mean':>10}{'max':>10}"
    for name, key in LATENCIES:
        found = arm.metrics.get(key)
        if isinstance(found, Summary):
            figures = (found.p50, found.p90, found.p99, found.avg, found.max)
            yield f"  {name:<14}" + "".join(f"{format_ms(value):>10}" for value in figures)
        else:
            yield f"  {name:<14}{UNKNOWN:>10}"
    yield "  " + _throughput(arm)
    if arm.split is not None:
        yield from wrapped(_split(arm), indent="  ")
    if arm.kv is not None:
        yield from wrapped(
            f"KV: {counted(arm.kv.transfers, 'transfer')}, {format_bytes(arm.kv.bytes)}, "
            f"mean {format_ms(arm.kv.mean_ms)}, {format_gigabytes_per_s(arm.kv.gigabytes_per_s)}",
            indent="  ",
        )
    if len(arm.worker_load) > 1:
        yield from wrapped("load: " + ", ".join(f"{w.id} {w.requests}" for w in arm.worker_load), indent="  ")


def _throughput(arm: ArmResult) -> str:
    def number(key: str) -> str:
        value = arm.metrics.get(key)
        return f"{value:.1f}" if isinstance(value, float) else UNKNOWN

    line = f"{number('requests_per_s')} req/s, {number('output_tokens_per_s')} tok/s"
    if arm.gpus:
        line += f", {number('output_tokens_per_s_per_gpu')} tok/s/GPU"
    if arm.metrics.get("goodput") is not None:
        line += f", goodput {number('goodput')} req/s"
    return line


def _split(arm: ArmResult) -> str:
    split = arm.split
    assert split is not None  # noqa: S101 - the caller looked
    parts = [f"queue {format_ms(split.queue)}", f"prefill {format_ms(split.prefill)}"]
    if split.handover is not None:
        parts.append(f"handover {format_ms(split.handover)}")
    said = f"TTFT split (frontend, medians): {' + '.join(parts)}"
    names = {"transfer": "transfer", "first_decode": "first decode", "unattributed": "unattributed"}
    inner = [
        f"{name} {format_ms(value)}" for key, name in names.items() if (value := split.window.get(key)) is not None
    ]
    return f"{said}; of the hand-over, means: {', '.join(inner)}" if inner and split.handover is not None else said


def comparison_lines(layout: str, baseline: str, comparison: Mapping[str, Verdict]) -> Iterator[str]:
    """Ratios with their intervals, a row per metric."""
    yield from wrapped(f"{layout} against {baseline}: ratio, 95% interval")
    yield f"  {'':<14}{'p50':<21}{'p90':<21}{'p99'}"
    for name, key in LATENCIES:
        cells = [_cell(comparison.get(f"{key.removesuffix('_ms')}_p{percent}")) for percent in (50, 90, 99)]
        yield f"  {name:<14}{cells[0]:<21}{cells[1]:<21}{cells[2]}".rstrip()
    for name, key in THROUGHPUTS:
        if key in comparison:
            yield f"  {name:<14}{_cell(comparison[key])}".rstrip()
    yield "  + better, - worse, = no difference shown"


def _cell(verdict: Verdict | None) -> str:
    if verdict is None or verdict.ratio is None or verdict.ci95 is None:
        return UNKNOWN
    mark = {"better": "+", "worse": "-"}.get(verdict.verdict, "=")
    return f"{verdict.ratio:.2f}{mark} [{verdict.ci95[0]:.2f}, {verdict.ci95[1]:.2f}]"
