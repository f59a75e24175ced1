"""A comparison in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dynctl.bench.document import ArmResult
from dynctl.bench.verdict import Verdict

NAMES = {
    "ttft": "TTFT",
    "ttst": "TTST",
    "itl": "ITL",
    "inter_chunk": "inter-chunk",
    "request_latency": "request latency",
    "requests_per_s": "requests/s",
    "output_tokens_per_s": "output tokens/s",
    "goodput": "goodput",
}
HEADLINE = ("ttft_p50", "ttft_p99", "itl_p50", "itl_p99", "inter_chunk_p99", "output_tokens_per_s", "goodput")
SLOW_FABRIC = 0.15
"""A share of TTFT from which the transfer is worth a sentence."""


def metric_name(key: str) -> str:
    """`ttft_p50` as `TTFT p50`."""
    stem, mark, percent = key.rpartition("_p")
    if mark and percent.isdigit():
        return f"{NAMES.get(stem, stem)} p{percent}"
    return NAMES.get(key, key)


def ratio_words(verdict: Verdict) -> str:
    """`0.71× [0.66, 0.77] better`."""
    if verdict.ratio is None or verdict.ci95 is None:
        return verdict.note or "not measured"
    low, high = verdict.ci95
    return f"{verdict.ratio:.2f}× [{low:.2f}, {high:.2f}] {verdict.verdict}"


def gigabytes_words(rate: float) -> str:
    """`0.60 GB/s`; below a tenth of that in MB/s."""
    return f"{rate:.2f} GB/s" if rate >= 0.1 else f"{rate * 1000:.0f} MB/s"


def verdict_line(layout: str, baseline: str, comparison: Mapping[str, Verdict]) -> str:
    """The headline metrics that differ, worse ones as plainly as better ones, and what showed no difference."""
    shown = {key: comparison[key] for key in HEADLINE if key in comparison and comparison[key].ratio is not None}
    said = [
        f"{metric_name(key)} {ratio_words(verdict)}"
        for key, verdict in shown.items()
        if verdict.verdict != "no difference shown"
    ]
    same = [metric_name(key) for key, verdict in shown.items() if verdict.verdict == "no difference shown"]
    if same:
        said.append(f"no difference shown in {', '.join(same)}")
    return f"{layout} against {baseline}: {'; '.join(said) or 'nothing could be compared'}"


def itself_line(baseline: str, itself: Mapping[str, Verdict]) -> str:
    """What noise looks like: the baseline against itself."""
    shown = [(key, itself[key]) for key in HEADLINE if key in itself]
    said = [f"{metric_name(key)} {verdict.ratio:.2f}×" for key, verdict in shown if verdict.ratio is not None]
    return f"{baseline} against itself: {', '.join(said) or 'nothing could be compared'}; no verdict on less than that"


def kv_lines(arm: ArmResult) -> Iterator[str]:
    """What the transfer means, where it can be told."""
    kv, split = arm.kv, arm.split
    if kv is None or not kv.transfers or kv.share_of_ttft is None:
        return
    rate = f" at {gigabytes_words(kv.gigabytes_per_s)}" if kv.gigabytes_per_s is not None else ""
    line = f"{arm.layout}: KV transfer is {100 * kv.share_of_ttft:.0f}% of TTFT{rate}"
    if kv.share_of_ttft >= SLOW_FABRIC and split is not None and (split.prefill or 0) > 0:
        line += ": look at the fabric first (`dynctl check-rdma`)"
    yield line
