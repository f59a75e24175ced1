"""What the metrics mean, on a request whose readings are known."""

from __future__ import annotations

import pytest

from dynctl.bench.sample import Sample, gaps_ms, itl_ms, meets, request_latency_ms, ttft_ms, ttst_ms
from dynctl.bench.summary import Round, rates, summary
from dynctl.bench.verdict import compare


def sample(**changes: object) -> Sample:
    """Sent at 10 s, first content after 50 ms, three more chunks of two tokens each 5 ms apart."""
    base: dict[str, object] = {
        "id": "x",
        "sent_s": 10.0,
        "chunk_s": (10.05, 10.055, 10.06, 10.065),
        "end_s": 10.07,
        "output_tokens": 8,
        "asked_tokens": 8,
    }
    return Sample(**{**base, **changes})  # type: ignore[arg-type]


def test_latencies() -> None:
    """ITL divides by tokens, not by chunks; the gaps are between chunks."""
    assert ttft_ms(sample()) == pytest.approx(50)
    assert ttst_ms(sample()) == pytest.approx(5)
    assert request_latency_ms(sample()) == pytest.approx(65)
    assert itl_ms(sample()) == pytest.approx(15 / 7)
    assert gaps_ms(sample()) == pytest.approx([5, 5, 5])
    assert itl_ms(sample(output_tokens=None)) == pytest.approx(5), "without usage, chunks are counted"


def test_an_open_loop_counts_from_the_schedule() -> None:
    """A request that was sent late has waited all the same."""
    assert ttft_ms(sample(due_s=9.0)) == pytest.approx(1050)


def test_goodput() -> None:
    """Every objective must be met, and a failed request is never good."""
    assert meets(sample(), {"ttft_ms": 51, "itl_ms": 3})
    assert not meets(sample(), {"ttft_ms": 49})
    assert not meets(sample(error="closed"), {"ttft_ms": 51})


def test_percentiles_are_numpys() -> None:
    """numpy.percentile([1, 2, 3, 4], 90) is 3.7."""
    found = summary([4.0, 1.0, 3.0, 2.0])
    assert found is not None
    assert (found.p50, found.p90, found.count) == (2.5, pytest.approx(3.7), 4)
    assert summary([]) is None


def test_rates_count_what_came_while_the_load_was_whole() -> None:
    """Ramp and tail add to the throughput what they did within the window, and nothing outside."""
    measured = sample(id="m", sent_s=10.0, chunk_s=(10.5, 11.0), output_tokens=2, end_s=11.0)
    ramp = sample(id="r", phase="ramp", sent_s=9.0, chunk_s=(9.5, 10.5), output_tokens=2, end_s=10.5)
    tail = sample(id="t", phase="tail", sent_s=10.5, chunk_s=(12.0, 12.5), output_tokens=2, end_s=12.5)
    found = rates(Round(number=0, samples=(ramp, measured, tail)))
    assert found is not None
    assert found.seconds == pytest.approx(1.0)
    assert found.requests_per_s == pytest.approx(1 + 0.5 / 1.5 + 0.5 / 2.0), "each by its share of the window"
    assert found.output_tokens_per_s == pytest.approx(3.0)


def test_streams_in_step_do_not_raise_the_rate() -> None:
    """Four slots of one second each: four requests per second, though the window opens as four of them end."""
    phases = ["ramp", *["measured"] * 5, "tail"]
    samples = tuple(
        sample(id=f"{slot}-{turn}", phase=phase, sent_s=turn + slot / 1e4, chunk_s=(turn + 0.5, turn + 1 + slot / 1e4))
        for turn, phase in enumerate(phases)
        for slot in range(4)
    )
    found = rates(Round(number=0, samples=samples), {"ttft_ms": 1000.0})
    assert found is not None
    assert found.requests_per_s == pytest.approx(4.0, rel=1e-3)
    assert found.goodput == pytest.approx(4.0, rel=1e-3)


def test_failed_requests_are_no_latencies() -> None:
    """They are counted as errors elsewhere; their readings would flatter."""
    part = Round(number=0, samples=(sample(), sample(error="HTTP 500", chunk_s=())))
    assert len(part.values("ttft_ms")) == 1


def test_compare_names_what_it_can_not_say() -> None:
    """Two rounds of a few requests: ratios with intervals, no p99."""

    def rounds(scale: float) -> list[Round]:
        return [
            Round(
                number=n,
                samples=tuple(
                    sample(chunk_s=(10 + 0.05 * scale * (1 + i / 50 + n / 100), 10.5 * scale)) for i in range(9)
                ),
            )
            for n in range(2)
        ]

    found = compare(rounds(1.0), rounds(1.5))
    assert found["ttft_p50"].ratio == pytest.approx(1.5)
    assert found["ttft_p99"].note == "p99 needs 500 requests per layout; there are 18"
    assert "goodput" not in found
