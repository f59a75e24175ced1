"""Results in the shapes of vLLM's and aiperf's own tools, so that what reads theirs reads ours (bench.md §5)."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from dynctl.bench.document import ArmResult
from dynctl.bench.measure import Arm
from dynctl.bench.sample import Sample, gaps_ms, itl_ms, request_latency_ms, ttft_ms, ttst_ms
from dynctl.bench.summary import PERCENTILES, percentile, rates, summary

_TAGS = {
    "time_to_first_token": ttft_ms,
    "time_to_second_token": ttst_ms,
    "inter_token_latency": itl_ms,
    "request_latency": request_latency_ms,
}


def vllm(arm: Arm, result: ArmResult) -> dict[str, Any]:
    """`vllm bench serve --save-result --save-detailed`: seconds in the arrays, milliseconds in the statistics; TPOT is
    our ITL, ITL our gaps between chunks. Latencies count from the schedule, so start times and queues do, too."""
    samples = [sample for part in arm.rounds for sample in part.measured]
    seconds = sum(rate.seconds for part in arm.rounds if (rate := rates(part)))
    inputs, outputs = sum(s.input_tokens or 0 for s in samples), sum(s.tokens for s in samples)
    out: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": "openai",
        "backend": "openai",
        "label": arm.label,
        "model_id": arm.workload.model,
        "tokenizer_id": arm.workload.model,
        "num_gpus": result.gpus or None,
        "num_prompts": len(samples) + result.failed,
        "request_rate": arm.workload.open.rate if arm.workload.open else "inf",
        "burstiness": arm.workload.open.burstiness if arm.workload.open else 1.0,
        "max_concurrency": arm.workload.concurrency or None,
        "duration": seconds,
        "completed": len(samples),
        "failed": result.failed,
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": result.metrics.get("requests_per_s"),
        "request_goodput": result.metrics.get("goodput"),
        "output_throughput": result.metrics.get("output_tokens_per_s"),
        "total_token_throughput": (inputs + outputs) / seconds if seconds else 0.0,
        "input_lens": [s.input_tokens or 0 for s in samples],
        "output_lens": [s.tokens for s in samples],
        "ttfts": [(ttft_ms(s) or 0.0) / 1000 for s in samples],
        "itls": [[gap / 1000 for gap in gaps_ms(s)] for s in samples],
        "latencies": [(request_latency_ms(s) or 0.0) / 1000 for s in samples],
        "start_times": [s.begin_s for s in samples],
        "queue_times": [0.0 for _ in samples],
        "generated_texts": ["" for _ in samples],
        "errors": ["" for _ in samples],
        **_peaks(samples),
        "rtfx": 0.0,
    }
    for name, get in (("ttft", ttft_ms), ("tpot", itl_ms), ("e2el", request_latency_ms)):
        out.update(_statistics(name, [value for s in samples if (value := get(s)) is not None]))
    out.update(_statistics("itl", [gap for s in samples for gap in gaps_ms(s)]))
    return out


def _statistics(name: str, values: list[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    return {
        f"mean_{name}_ms": statistics.fmean(ordered),
        f"median_{name}_ms": statistics.median(ordered),
        f"std_{name}_ms": statistics.pstdev(ordered),
        **{f"p{percent}_{name}_ms": percentile(ordered, percent) for percent in (50, 90, 95, 99)},
    }


def _peaks(samples: list[Sample]) -> dict[str, float]:
    """As vLLM has them: chunks and open requests by whole seconds from the first request on, the most of each."""
    first_s = min((sample.begin_s for sample in samples), default=0.0)
    tokens = Counter(int(at - first_s) for sample in samples for at in sample.chunk_s)
    open_: Counter[int] = Counter()
    for sample in samples:
        open_.update(range(int(sample.begin_s - first_s), int(sample.chunk_s[-1] - first_s) + 1))
    return {
        "max_output_tokens_per_s": float(max(tokens.values(), default=0)),
        "max_concurrent_requests": max(open_.values(), default=0),
    }


def aiperf(arm: Arm, result: ArmResult) -> dict[str, Any]:
    """aiperf's `profile_export_aiperf.json`: one object of statistics per tag."""
    samples = [sample for part in arm.rounds for sample in part.measured]
    out: dict[str, Any] = {}
    for tag, get in _TAGS.items():
        out[tag] = _tag("ms", [value for s in samples if (value := get(s)) is not None])
    out["inter_chunk_latency"] = _tag("ms", [gap for s in samples for gap in gaps_ms(s)])
    out["input_sequence_length"] = _tag("tokens", [float(s.input_tokens) for s in samples if s.input_tokens])
    out["output_sequence_length"] = _tag("tokens", [float(s.tokens) for s in samples])
    out["output_token_throughput_per_user"] = _tag(
        "tokens/sec/user", [1000 / value for s in samples if (value := itl_ms(s))]
    )
    seconds = sum(rate.seconds for part in arm.rounds if (rate := rates(part)))
    scalars = {
        "output_token_throughput": ("tokens/sec", result.metrics.get("output_tokens_per_s")),
        "request_throughput": ("requests/sec", result.metrics.get("requests_per_s")),
        "goodput": ("requests/sec", result.metrics.get("goodput")),
        "request_count": ("requests", float(len(samples))),
        "error_request_count": ("requests", float(result.failed)),
        "benchmark_duration": ("sec", seconds),
    }
    for tag, (unit, figure) in scalars.items():
        if isinstance(figure, float):
            out[tag] = {"unit": unit, "avg": figure}
    return {tag: value for tag, value in out.items() if value is not None}


def _tag(unit: str, values: list[float]) -> dict[str, Any] | None:
    found = summary(values)
    if found is None:
        return None
    names = ("avg", "min", "max", "std", "count", "sum", *(f"p{percent}" for percent in PERCENTILES))
    return {"unit": unit, **{name: getattr(found, name) for name in names}}


def aiperf_rows(arm: Arm) -> Iterator[dict[str, Any]]:
    """aiperf's `profile_export.jsonl`: one row per request, its times by the wall clock."""
    wall_s = time.time() - time.monotonic()
    served = (sample for part in arm.rounds for sample in part.samples if sample.served)
    for number, sample in enumerate(served):
        yield {"metadata": _metadata(sample, number, wall_s), "metrics": _metrics(sample)}


def _metadata(sample: Sample, number: int, wall_s: float) -> dict[str, Any]:
    return {
        "session_num": number,
        "x_request_id": sample.id,
        "credit_issued_ns": round((wall_s + sample.begin_s) * 1e9),
        "request_start_ns": round((wall_s + sample.sent_s) * 1e9),
        "request_end_ns": round((wall_s + sample.end_s) * 1e9),
        "worker_id": "dynctl",
        "record_processor_id": "dynctl",
        "benchmark_phase": "profiling" if sample.phase == "measured" else "warmup",
    }


def _metrics(sample: Sample) -> dict[str, Any]:
    found: dict[str, Any] = {
        tag: {"value": value, "unit": "ms"} for tag, get in _TAGS.items() if (value := get(sample)) is not None
    }
    found["inter_chunk_latency"] = {"value": gaps_ms(sample), "unit": "ms"}
    found["output_sequence_length"] = {"value": sample.tokens, "unit": "tokens"}
    if sample.input_tokens is not None:
        found["input_sequence_length"] = {"value": sample.input_tokens, "unit": "tokens"}
    return found
