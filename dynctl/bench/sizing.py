"""How many prefill and decode workers: the arithmetic of bench's figures. Rates are per worker, in requests per second.

Prefill is an M/D/1 queue (DistServe): a prompt's own time D, and a mean wait of rate * D**2 / (2 * (1 - rate * D)).
"""

from __future__ import annotations

import msgspec

from dynctl.counted import counted

PREFILL_USE, DECODE_USE = 0.90, 0.92
"""Shares of a pool's rate that can be counted on (AIConfigurator's)."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What is known: tokens per second of one prefill and one decode worker, lengths, objectives, GPUs.

    `decode_tok_s`: of a worker at the largest batch that keeps to the ITL objective. `kv_tokens`: KV cache of a decode
    worker and `batch` that it was measured at, where known: a batch that does not fit is cut. `transfer_ms`: KV
    transfer of one prompt. `hit`: share of a prompt that the prefix cache has.
    """

    prefill_tok_s: float
    decode_tok_s: float
    isl: float
    osl: float
    gpus: int
    prefill_gpus: int = 1
    decode_gpus: int = 1
    ttft_ms: float | None = None
    transfer_ms: float = 0.0
    hit: float = 0.0
    batch: float | None = None
    kv_tokens: float | None = None


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """So many workers of each, and the requests per second that they serve."""

    prefill: int
    decode: int
    gpus: int
    requests_per_s: float
    per_gpu: float
    limited_by: str


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """`best` first, then the next ones. `ratio`: prefill workers per decode worker at which neither waits, None where
    prefill can't keep to the objective.

    `aggregated_per_gpu`: the ideal of as many aggregated GPUs; the best split can equal it, not beat it, unless batches
    limited by an objective are what limits the aggregated ones. `prefill_ms`: a prompt's own time. `source`: whose
    arithmetic it is; AIConfigurator's `aggregated_per_gpu` is its best aggregated layout within the objectives.
    """

    schema: int = 1
    kind: str = "size"
    prefill_rate: float
    decode_rate: float
    prefill_ms: float
    ratio: float | None
    best: Split | None
    others: tuple[Split, ...] = ()
    aggregated_per_gpu: float
    of_ideal: float | None = None
    says: tuple[str, ...] = ()
    source: str = "dynctl"


def advise(demand: Demand) -> Advice:
    """The split that serves the most requests per GPU within the objectives."""
    alone_s = max(demand.isl * (1 - demand.hit), 1.0) / demand.prefill_tok_s
    prefill_rate = _prefill_rate(demand, alone_s)
    decode_rate = demand.decode_tok_s * _batch_share(demand) / demand.osl
    found = [split for split in _splits(demand, prefill_rate, decode_rate) if split.requests_per_s > 0]
    found.sort(key=lambda split: (-split.per_gpu, split.gpus))
    best = max(found, key=lambda split: (split.requests_per_s, -split.gpus), default=None)
    raw_p, raw_d = 1 / alone_s / demand.prefill_gpus, decode_rate / demand.decode_gpus
    ideal = raw_p * raw_d / (raw_p + raw_d)
    return Advice(
        prefill_rate=prefill_rate,
        decode_rate=decode_rate,
        prefill_ms=alone_s * 1000,
        ratio=DECODE_USE * decode_rate / (PREFILL_USE * prefill_rate) if prefill_rate else None,
        best=best,
        others=tuple([split for split in found if split is not best][:4]),
        aggregated_per_gpu=ideal,
        of_ideal=best.per_gpu / ideal if best else None,
        says=tuple(_words(demand, prefill_rate, alone_s, best, ideal)),
    )


def _prefill_rate(demand: Demand, alone_s: float) -> float:
    """The rate at which the mean TTFT is the objective: w = TTFT - D - transfer, rate = 2w / (D * (D + 2w))."""
    most = 1 / alone_s
    if demand.ttft_ms is None:
        return most
    spare_s = (demand.ttft_ms - demand.transfer_ms) / 1000 - alone_s
    return 0.0 if spare_s <= 0 else min(most, 2 * spare_s / (alone_s * (alone_s + 2 * spare_s)))


def _batch_share(demand: Demand) -> float:
    """1, or less where the batch does not fit into the KV cache: a sequence holds ISL + OSL/2 tokens on average."""
    if demand.batch is None or demand.kv_tokens is None:
        return 1.0
    return min(1.0, demand.kv_tokens / (demand.isl + demand.osl / 2) / demand.batch)


def _splits(demand: Demand, prefill_rate: float, decode_rate: float) -> list[Split]:
    out = []
    for prefill in range(1, demand.gpus // demand.prefill_gpus + 1):
        for decode in range(1, (demand.gpus - prefill * demand.prefill_gpus) // demand.decode_gpus + 1):
            sides = {"prefill": PREFILL_USE * prefill * prefill_rate, "decode": DECODE_USE * decode * decode_rate}
            limit = min(sides, key=lambda side: sides[side])
            gpus = prefill * demand.prefill_gpus + decode * demand.decode_gpus
            out.append(
                Split(
                    prefill=prefill,
                    decode=decode,
                    gpus=gpus,
                    requests_per_s=sides[limit],
                    per_gpu=sides[limit] / gpus,
                    limited_by=limit,
                )
            )
    return out


def _words(demand: Demand, prefill_rate: float, alone_s: float, best: Split | None, ideal: float) -> list[str]:
    if prefill_rate <= 0:
        return [
            f"no split keeps to TTFT {demand.ttft_ms:g} ms: a prompt of {demand.isl:g} tokens alone takes "
            f"{alone_s * 1000:.0f} ms, and its transfer {demand.transfer_ms:.0f} ms; use more GPUs per prefill worker"
        ]
    if best is None:
        needed = demand.prefill_gpus + demand.decode_gpus
        return [f"{counted(demand.gpus, 'GPU')} can hold no split: one prefill and one decode worker need {needed}"]
    said = [
        f"{best.prefill} prefill and {best.decode} decode workers on {counted(best.gpus, 'GPU')}: "
        f"{best.requests_per_s:.2f} req/s, limited by {best.limited_by}"
    ]
    share = best.per_gpu / ideal
    said.append(
        f"that is {100 * share:.0f}% of what ideal aggregated GPUs would serve ({ideal:.2f} req/s per GPU): "
        "disaggregation wins throughput only where an aggregated batch is cut short by an objective; measure it with "
        "`dynctl bench`"
    )
    return said
