"""What `size` was asked, filled up from a saved bench, and its answer."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from dynctl.bench.aiconfigurator import find as aiconfigurator
from dynctl.bench.aiconfigurator import simulate
from dynctl.bench.saved import Saved
from dynctl.bench.sized import topology
from dynctl.bench.sizing import Advice, Demand, advise
from dynctl.bench.table import wrapped
from dynctl.cli.bench_options import lengths, slo_ms
from dynctl.counted import counted
from dynctl.errors import UsageError
from dynctl.replacing import replace
from dynctl.topology.load import load_text


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """As typed."""

    from_bench: Path | None
    prefill_tok_s: float | None
    decode_tok_s: float | None
    isl: str | None
    osl: str | None
    gpus: int
    prefill_gpus: int
    decode_gpus: int
    slo: str | None
    hit: float
    batch: float | None = None
    kv_tokens: float | None = None
    output: Path | None = None
    model: str | None = None
    aiconfigurator: bool = False
    system: str | None = None


class Known(msgspec.Struct, kw_only=True):
    """What a saved bench tells: rates of one worker as they were under that load, lengths, one transfer."""

    prefill_tok_s: float | None = None
    decode_tok_s: float | None = None
    isl: float | None = None
    osl: float | None = None
    transfer_ms: float = 0.0


def answer(asked: Asked, *, as_json: bool) -> int:
    """Prints the advice; UsageError when something that it needs is not known."""
    if asked.output is not None and not asked.model:
        raise UsageError("no model for the topology file", where="--output", fix="name it with --model")
    known = _known(asked.from_bench) if asked.from_bench else Known()
    if asked.aiconfigurator and not (asked.model and asked.system):
        raise UsageError("AIConfigurator needs a model and a kind of GPU", fix="--model NAME --system h200_sxm")
    rates = {
        "--prefill-tok-s": asked.prefill_tok_s or known.prefill_tok_s,
        "--decode-tok-s": asked.decode_tok_s or known.decode_tok_s,
        "--isl": lengths(asked.isl, "--isl").mean if asked.isl else known.isl,
        "--osl": lengths(asked.osl, "--osl").mean if asked.osl else known.osl,
    }
    needed = ("--isl", "--osl") if asked.aiconfigurator else tuple(rates)
    missing = [name for name in needed if not (rates[name] or 0) > 0]
    if missing:
        raise UsageError(
            f"not known: {', '.join(missing)}", fix="name them, or --from-bench DIR of a disaggregated run"
        )
    limits = slo_ms(asked.slo)
    demand = Demand(
        prefill_tok_s=rates["--prefill-tok-s"] or 0.0,
        decode_tok_s=rates["--decode-tok-s"] or 0.0,
        isl=rates["--isl"] or 0.0,
        osl=rates["--osl"] or 0.0,
        gpus=asked.gpus,
        prefill_gpus=asked.prefill_gpus,
        decode_gpus=asked.decode_gpus,
        ttft_ms=limits.get("ttft_ms"),
        transfer_ms=known.transfer_ms,
        hit=asked.hit,
        batch=asked.batch,
        kv_tokens=asked.kv_tokens,
    )
    if asked.aiconfigurator:
        advice, shape = simulate(
            aiconfigurator(), demand, model=asked.model or "", system=asked.system or "", itl_ms=limits.get("itl_ms")
        )
        demand = msgspec.structs.replace(demand, prefill_gpus=shape.prefill_gpus, decode_gpus=shape.decode_gpus)
    else:
        advice = advise(demand)
    if asked.output is not None:
        _write(asked.output, advice, demand, asked.model or "")
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(advice), indent=1).decode())  # noqa: T201
    else:
        _show(advice)
    return 0


def _write(path: Path, advice: Advice, demand: Demand, model: str) -> None:
    """The best split as a topology file, which was read back before; a file that is there stays as it is."""
    if advice.best is None:
        raise UsageError("no split to write", where="--output", why=advice.says)
    content = topology(advice.best, demand, model)
    load_text(content, path)
    try:
        replace(path, content.encode(), fresh=True)
    except FileExistsError:
        raise UsageError("there is a file of that name already", where=str(path), fix="name another") from None
    except OSError as error:
        raise UsageError(f"can't write {path}", where="--output", why=error.strerror) from error
    print(f"wrote {path}", file=sys.stderr)  # noqa: T201


def _show(advice: Advice) -> None:
    lines = [f"prefill worker {advice.prefill_rate:.2f} req/s, decode worker {advice.decode_rate:.2f} req/s"]
    if advice.ratio is not None:
        lines.append(f"neither waits at {advice.ratio:.2f} prefill workers per decode worker")
    lines += [line for said in advice.says for line in wrapped(said)]
    for split in advice.others:
        lines.append(
            f"  {split.prefill}P{split.decode}D on {counted(split.gpus, 'GPU')}: {split.requests_per_s:.2f} req/s"
        )
    for line in lines:
        print(line)  # noqa: T201 - stdout is data


def _known(folder: Path) -> Known:
    """From the first disaggregated layout. Decode's rate is what it made under that load: it may be able to do more."""
    document = Saved(folder, where="--from-bench").document
    run = next((arm for arm in document.runs if arm.kv is not None), None)
    if run is None:
        raise UsageError("no layout in it was disaggregated", where=str(folder))
    workload = document.workload
    isl, osl = (_mean(workload.get(key)) for key in ("isl", "osl"))
    compute_ms = run.split.window.get("prefill_compute") if run.split else None
    decodes = sum(1 for load in run.worker_load if load.id.startswith("decode")) or 1
    tokens = run.metrics.get("output_tokens_per_s")
    return Known(
        prefill_tok_s=isl * 1000 / compute_ms if isl and compute_ms else None,
        decode_tok_s=tokens / decodes if isinstance(tokens, float) else None,
        isl=isl,
        osl=osl,
        transfer_ms=(run.kv.mean_ms or 0.0) if run.kv else 0.0,
    )


def _mean(found: object) -> float | None:
    if isinstance(found, dict) and {"low", "high"} <= set(found):
        return float(found["low"] + found["high"]) / 2
    return None
