"""A topology file of a split that `size` advised."""

from __future__ import annotations

import json

from dynctl.bench.sizing import Demand, Split


def topology(split: Split, demand: Demand, model: str) -> str:
    """YAML of one engine: so many workers of each role, each on its GPUs, and their objective."""
    lines = [
        f"# As `dynctl size` advised: {split.requests_per_s:.2f} req/s of {demand.isl:g} input and "
        f"{demand.osl:g} output tokens, limited by {split.limited_by}.",
        "schema: 1",
        f"model: {json.dumps(model)}",
        "roles:",
        f"  prefill: {_role(split.prefill, demand.prefill_gpus)}",
        f"  decode: {_role(split.decode, demand.decode_gpus)}",
    ]
    if demand.ttft_ms is not None:
        lines.append(f"slo: {{ttft: {demand.ttft_ms:g}ms}}")
    return "\n".join(lines) + "\n"


def _role(workers: int, gpus: int) -> str:
    return f"{{workers: {workers}, tp: {gpus}}}" if gpus > 1 else f"{{workers: {workers}}}"
