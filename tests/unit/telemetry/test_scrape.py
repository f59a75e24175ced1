"""The few numbers that are read from an engine's metrics."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.telemetry.scrape import WANTED, EngineSample, sample, totals

TEXT = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 14385.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 1.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
vllm:num_requests_waiting{engine="1",model_name="tiny"} 4.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 9.0
# HELP vllm:request_queue_time_seconds Histogram of time spent in WAITING phase for request.
# TYPE vllm:request_queue_time_seconds histogram
vllm:request_queue_time_seconds_bucket{engine="0",le="0.3",model_name="tiny"} 4.0
vllm:request_queue_time_seconds_bucket{engine="0",le="+Inf",model_name="tiny"} 4.0
vllm:request_queue_time_seconds_count{engine="0",model_name="tiny"} 4.0
vllm:request_queue_time_seconds_sum{engine="0",model_name="tiny"} 0.25
vllm:request_queue_time_seconds_count{engine="1",model_name="tiny"} 1.0
vllm:request_queue_time_seconds_sum{engine="1",model_name="tiny"} 0.5
vllm:request_queue_time_seconds_created{engine="1",model_name="tiny"} 1.7954e+09
# TYPE vllm:request_prefill_time_seconds histogram
vllm:request_prefill_time_seconds_count{engine="0",model_name="tiny"} 4.0
vllm:request_prefill_time_seconds_sum{engine="0",model_name="tiny"} 1.5
# TYPE vllm:inter_token_latency_seconds histogram
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.01",model_name="tiny"} 3.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="0.025",model_name="tiny"} 10.0
vllm:inter_token_latency_seconds_bucket{engine="0",le="+Inf",model_name="tiny"} 12.0
vllm:inter_token_latency_seconds_bucket{engine="1",le="0.01",model_name="tiny"} 1.0
vllm:inter_token_latency_seconds_bucket{engine="1",le="0.025",model_name="tiny"} 1.0
vllm:inter_token_latency_seconds_bucket{engine="1",le="+Inf",model_name="tiny"} 1.0
vllm:inter_token_latency_seconds_count{engine="0",model_name="tiny"} 12.0
vllm:inter_token_latency_seconds_sum{engine="0",model_name="tiny"} 0.2
# TYPE vllm:nixl_xfer_time_seconds histogram
vllm:nixl_xfer_time_seconds_count{engine="0",model_name="tiny"} 6.0
vllm:nixl_xfer_time_seconds_sum{engine="0",model_name="tiny"} 0.0384
# TYPE vllm:nixl_bytes_transferred histogram
vllm:nixl_bytes_transferred_count{engine="0",model_name="tiny"} 6.0
vllm:nixl_bytes_transferred_sum{engine="0",model_name="tiny"} 6.8e+06
"""


def test_a_real_looking_page() -> None:
    assert sample(TEXT, at=7.0) == EngineSample(
        at=7.0,
        kv_bytes=6_800_000.0,
        transfer_s=0.0384,
        transfers=6.0,
        queue_s=0.75,
        queued=5.0,
        prefill_s=1.5,
        prefills=4.0,
        running=3.0,
        waiting=4.0,
        itl_buckets={0.01: 4.0, 0.025: 11.0, float("inf"): 13.0},
    )


@pytest.mark.parametrize("text", [
    "", "\n\n", "<html>502 Bad Gateway</html>", '{"error": "no"}', "vllm:num_requests_running", "\x00\x01",
    "vllm:num_requests_running{engine= 2", "vllm:num_requests_running{engine=\"0\"} two",
    'vllm:inter_token_latency_seconds_bucket{le="wide"} 1',
])  # fmt: skip
def test_what_is_not_prometheus_text_gives_an_empty_sample(text: str) -> None:
    assert sample(text, at=1.0) == EngineSample(at=1.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(WANTED), st.text(max_size=30)), max_size=4))
def test_no_text_breaks_it(lines: list[tuple[str, str]]) -> None:
    assert sample("\n".join(name + rest for name, rest in lines), at=1.0).at == 1.0


def test_an_engine_of_another_kind_has_none_of_the_numbers() -> None:
    assert sample('sglang:num_running_reqs{model_name="x"} 3.0\n', at=2.0) == EngineSample(at=2.0)


def test_totals_are_those_of_the_sample() -> None:
    text = """# HELP vllm:request_queue_time_seconds_sum of nothing
vllm:request_queue_time_seconds_sum{engine="0",model_name="a b"} 1.5
vllm:request_queue_time_seconds_sum{engine="1",model_name="a b"} 2.5e-1
vllm:request_queue_time_seconds_summary 7
vllm:request_queue_time_seconds_count 4.0
vllm:request_prefill_time_seconds_sum nonsense"""
    assert totals(text, ("queue_s", "queued", "prefill_s")) == {"queue_s": 1.75, "queued": 4.0, "prefill_s": 0.0}
    assert totals("", ["queued"]) == {"queued": 0.0}
