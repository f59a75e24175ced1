"""Run by the engine's interpreter: reads a result file with vLLM's own code, and prints what vLLM makes of it.

usage: python read_vllm_result.py FILE
"""

import json
import sys
from pathlib import Path

from vllm.benchmarks import plot, serve
from vllm.benchmarks.lib.endpoint_request_func import RequestFuncOutput
from vllm.benchmarks.sweep import plot as sweep
from vllm.benchmarks.sweep import plot_pareto, serve_workload

TTFT, TPOT, E2EL = "ttft", "tpot", "e2el"


def main(path: Path) -> None:
    (saved,) = sweep._convert_inf_nan_strings([json.loads(path.read_text())])
    outputs = [
        RequestFuncOutput(
            success=True, latency=latency, ttft=ttft, itl=itl, prompt_len=inputs, output_tokens=tokens, start_time=start
        )
        for latency, ttft, itl, inputs, tokens, start in zip(
            *(saved[name] for name in ("latencies", "ttfts", "itls", "input_lens", "output_lens", "start_times")),
            strict=True,
        )
    ]
    metrics, lengths = serve.calculate_metrics([], outputs, saved["duration"], None, [50, 90, 95, 99], {})
    figures = {
        f"{kind}_{name}_ms": getattr(metrics, f"{kind}_{name}_ms")
        for name in (TTFT, TPOT, "itl", E2EL)
        for kind in ("mean", "median", "std")
    }
    for name in (TTFT, TPOT, "itl", E2EL):
        for percent, value in getattr(metrics, f"percentiles_{name}_ms"):
            figures[f"p{percent}_{name}_ms"] = value
    for name in ("max_output_tokens_per_s", "max_concurrent_requests", "completed", "rtfx"):
        figures[name] = getattr(metrics, name)
    figures |= {"total_input_tokens": metrics.total_input, "total_output_tokens": sum(lengths)}
    rows, skipped = plot_pareto._prepare_records([saved], user_count_var="max_concurrency", gpu_count_var="num_gpus")
    requests = [
        {"start_time": s, "ttft": t, "itl": i, "latency": e, "prompt_len": p, "output_tokens": o}
        for s, t, i, e, p, o in zip(
            *(saved[name] for name in ("start_times", "ttfts", "itls", "latencies", "input_lens", "output_lens")),
            strict=True,
        )
    ]
    bars = plot.construct_timeline_data(requests, [0.025, 0.05], ["a", "b", "c"])
    found = {
        "figures": {name: float(value) for name, value in figures.items()},
        "tokens_per_user": rows[0]["tokens_per_user"],
        "skipped": skipped,
        "concurrency": serve_workload._estimate_workload_value(saved, "max_concurrency"),
        "bars": len(bars),
    }
    print("FOUND " + json.dumps(found))


main(Path(sys.argv[1]))
