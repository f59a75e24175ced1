"""The parts of a request's TTFT, from the clock readings between them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynctl.frontend.spans import Spans

CLOCK = st.floats(0, 1e7)


@given(st.lists(CLOCK, min_size=4, max_size=4).map(sorted))
def test_the_parts_add_up_exactly(readings: list[float]) -> None:
    spans = Spans(readings[0])
    spans.prefill_sent, spans.sent, spans.first_content = readings[1:]
    split = spans.split()
    assert split.queue_ms is not None
    assert split.prefill_ms is not None
    assert split.handover_ms is not None
    assert split.queue_ms + split.prefill_ms + split.handover_ms == split.ttft_ms


def test_a_split_of_known_readings() -> None:
    spans = Spans(1.0)
    assert spans.split().queue_ms is None
    spans.prefill_sent = 1.25
    assert (spans.split().queue_ms, spans.split().prefill_ms) == (250.0, None)
    spans.sent = 1.75
    assert (spans.split().prefill_ms, spans.split().ttft_ms) == (500.0, None)
    spans.first_content = 2.0
    split = spans.split()
    assert (split.queue_ms, split.prefill_ms, split.handover_ms, split.ttft_ms) == (250.0, 500.0, 250.0, 1000.0)


def test_one_leg_alone_has_no_handover() -> None:
    spans = Spans(1.0)
    spans.sent, spans.first_content = 1.5, 2.5
    split = spans.split()
    assert (split.queue_ms, split.prefill_ms, split.handover_ms, split.ttft_ms) == (500.0, 1000.0, None, 1500.0)
