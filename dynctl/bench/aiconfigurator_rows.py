"""AIConfigurator's best configurations (its best_config_topn.csv, version 0.12) as dynctl's advice."""

from __future__ import annotations

import csv
from collections.abc import Mapping

from dynctl.bench.sizing import Advice, Demand, Split
from dynctl.counted import counted

SOURCE = "AIConfigurator"


def arguments(demand: Demand, model: str, system: str, itl_ms: float | None, folder: str) -> list[str]:
    """Of `aiconfigurator`: both layouts on these GPUs, within the objectives."""
    argv = ["cli", "default", "--model", model, "--system", system, "--backend", "vllm", "--top-n", "1"]
    argv += ["--total-gpus", str(demand.gpus), "--isl", f"{demand.isl:.0f}", "--osl", f"{demand.osl:.0f}"]
    argv += ["--ttft", f"{demand.ttft_ms:g}"] if demand.ttft_ms is not None else []
    argv += ["--tpot", f"{itl_ms:g}"] if itl_ms is not None else []
    argv += ["--prefix", f"{demand.hit * demand.isl:.0f}"] if demand.hit else []
    return [*argv, "--save-dir", folder]


def advice(disaggregated: str, aggregated: str, gpus: int) -> tuple[Advice, Demand]:
    """From the two tables' text: the advice, and the shape of its workers (as a Demand's GPUs per worker).

    KeyError or ValueError for a table that is none of its kind; a table without rows has no configuration.
    """
    best, alone = _first(disaggregated), _first(aggregated)
    ideal = float(alone["seq/s/gpu"]) if alone else 0.0
    shape = {"prefill_tok_s": 0.0, "decode_tok_s": 0.0, "isl": 0.0, "osl": 0.0, "gpus": gpus}
    if best is None:
        says = (f"{SOURCE} finds no disaggregated layout on {counted(gpus, 'GPU')} within the objectives",)
        none = Advice(
            prefill_rate=0.0,
            decode_rate=0.0,
            prefill_ms=0.0,
            ratio=None,
            best=None,
            aggregated_per_gpu=ideal,
            says=says,
            source=SOURCE,
        )
        return none, Demand(**shape)  # type: ignore[arg-type]
    prefill_rate, decode_rate = float(best["(p)seq/s/worker"]), float(best["(d)seq/s/worker"])
    unit = int(best["num_total_gpus"])
    replicas = max(1, gpus // unit)
    rate = float(best["seq/s"]) * replicas
    split = Split(
        prefill=int(best["(p)workers"]) * replicas,
        decode=int(best["(d)workers"]) * replicas,
        gpus=unit * replicas,
        requests_per_s=rate,
        per_gpu=rate / (unit * replicas),
        limited_by="prefill" if prefill_rate <= decode_rate else "decode",
    )
    found = Advice(
        prefill_rate=prefill_rate,
        decode_rate=decode_rate,
        prefill_ms=1000 / prefill_rate * int(best["(p)bs"]),
        ratio=decode_rate / prefill_rate,
        best=split,
        aggregated_per_gpu=ideal,
        of_ideal=split.per_gpu / ideal if ideal else None,
        says=tuple(_words(split, best, alone, ideal)),
        source=SOURCE,
    )
    return found, Demand(**shape, prefill_gpus=_gpus(best, "(p)"), decode_gpus=_gpus(best, "(d)"))  # type: ignore[arg-type]


def _words(split: Split, best: Mapping[str, str], alone: Mapping[str, str] | None, ideal: float) -> list[str]:
    said = [
        f"{split.prefill} prefill and {split.decode} decode workers on {counted(split.gpus, 'GPU')}: "
        f"{split.requests_per_s:.2f} req/s, TTFT {float(best['ttft']):.0f} ms, {float(best['tpot']):.1f} ms per token, "
        f"by {SOURCE}'s model"
    ]
    if alone is None:
        return [*said, "no aggregated layout keeps to the objectives"]
    said.append(
        f"that is {100 * split.per_gpu / ideal:.0f}% of its best aggregated layout ({ideal:.2f} req/s per GPU, TTFT "
        f"{float(alone['ttft']):.0f} ms, {float(alone['tpot']):.1f} ms per token): measure both with `dynctl bench`"
    )
    return said


def _gpus(row: Mapping[str, str], role: str) -> int:
    return int(row[f"{role}tp"]) * int(row[f"{role}pp"]) * int(row[f"{role}dp"])


def _first(table: str) -> Mapping[str, str] | None:
    return next(iter(csv.DictReader(table.splitlines())), None)
