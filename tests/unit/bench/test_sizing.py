"""P:D counts: the arithmetic of bench.md §6, on numbers that can be worked out by hand."""

from __future__ import annotations

import msgspec
import pytest

from dynctl.bench.sizing import Demand, advise

DEMAND = Demand(prefill_tok_s=30_000, decode_tok_s=1500, isl=3000, osl=150, gpus=8)
"""A prompt takes 0.1 s, a decode worker serves 10 req/s: both roles are as fast."""


def test_equal_rates_share_the_gpus_evenly() -> None:
    """nP/nD is 1.02 times rD/rP; four of each serve 0.9 * 4 * 10 req/s."""
    advice = advise(DEMAND)
    assert advice.ratio == pytest.approx(0.92 / 0.90)
    assert advice.best is not None
    assert (advice.best.prefill, advice.best.decode, advice.best.limited_by) == (4, 4, "prefill")
    assert advice.best.requests_per_s == pytest.approx(36)
    assert advice.aggregated_per_gpu == pytest.approx(5), "rP * rD / (rP + rD)"
    assert advice.of_ideal == pytest.approx(0.9)


def test_an_objective_lowers_what_a_prefill_worker_may_serve() -> None:
    """TTFT 200 ms with 20 ms of transfer leaves w = 80 ms: 2w / (D (D + 2w)) = 6.15 req/s."""
    advice = advise(msgspec.structs.replace(DEMAND, ttft_ms=200, transfer_ms=20))
    assert advice.prefill_rate == pytest.approx(0.16 / (0.1 * 0.26))
    assert advice.best is not None
    assert advice.best.prefill == 5


def test_an_objective_that_nothing_meets_is_said() -> None:
    """No queue at all, and still too slow."""
    advice = advise(msgspec.structs.replace(DEMAND, ttft_ms=90))
    assert advice.best is None
    assert "no split keeps to TTFT 90 ms" in advice.says[0]


def test_a_batch_that_does_not_fit_is_cut() -> None:
    """A sequence holds 3075 tokens on average: half of a batch of 64 fits into 98,400."""
    advice = advise(msgspec.structs.replace(DEMAND, batch=64, kv_tokens=32 * 3075))
    assert advice.decode_rate == pytest.approx(5)


def test_too_few_gpus() -> None:
    """One of each must fit."""
    advice = advise(msgspec.structs.replace(DEMAND, gpus=3, prefill_gpus=2, decode_gpus=2))
    assert "3 GPUs can hold no split" in advice.says[0]
