"""The window: what counts, how it grows, what is a subtraction and what is not known."""

from __future__ import annotations

import itertools
import math
import statistics

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynctl.frontend.messages import RequestRecord
from dynctl.telemetry.scrape import EngineSample
from dynctl.telemetry.window import EngineWindow, RequestWindow, median_of_buckets, percentile, split

INF = float("inf")
CUMULATIVE = ("kv_bytes", "transfer_s", "transfers", "queue_s", "queued", "prefill_s", "prefills")


def record(
    queue: float | None = 1.0, prefill: float | None = 20.0, handover: float | None = 9.0, **changes: object
) -> RequestRecord:
    parts = [part for part in (queue, prefill, handover) if part is not None]
    fields: dict[str, object] = {
        "id": "a", "at": 1.0, "path": "/v1/completions", "mode": "disaggregated", "status": 200, "streamed": True,
        "queue_ms": queue, "prefill_ms": prefill, "handover_ms": handover, "ttft_ms": sum(parts) if parts else None,
        **changes,
    }  # fmt: skip
    return msgspec.convert(fields, RequestRecord)


def window(*samples: EngineSample, window_s: float = 60.0) -> EngineWindow:
    made = EngineWindow(window_s)
    for one in samples:
        made.add(one)
    return made


def at(seconds: float, **fields: object) -> EngineSample:
    return msgspec.convert({"at": seconds, **fields}, EngineSample)


# engines


def test_growth_needs_two_samples() -> None:
    assert EngineWindow().ends() is None
    assert window(at(1)).ends() is None
    first, last = at(1, transfers=2), at(2, transfers=5)
    assert window(first, last).ends() == (first, last)


def test_the_window_reaches_back_just_over_its_length() -> None:
    samples = [at(second, transfers=second) for second in range(0, 200, 2)]
    ends = window(*samples, window_s=60).ends()
    assert ends is not None
    assert (ends[0].at, ends[1].at) == (136, 198)


def test_a_quiet_time_before_does_not_lose_the_growth_after() -> None:
    ends = window(at(0, transfers=1), at(3600, transfers=4)).ends()
    assert ends is not None
    assert ends[1].transfers - ends[0].transfers == 3


@pytest.mark.parametrize("counter", CUMULATIVE)
def test_an_engine_that_restarted_begins_a_new_window(counter: str) -> None:
    """A prefill worker that is pulled from has no transfers of its own: its other counters must tell."""
    made = window(at(1, **{counter: 5.0}), at(2, **{counter: 9.0}), at(3, **{counter: 1.0}))
    assert made.ends() is None
    made.add(at(4, **{counter: 2.5}))
    ends = made.ends()
    assert ends is not None
    assert getattr(ends[1], counter) - getattr(ends[0], counter) == 1.5


def grown(made: EngineWindow, *names: str) -> list[float]:
    ends = made.ends()
    assert ends is not None
    return [round(getattr(ends[1], name) - getattr(ends[0], name), 9) for name in names]


def test_what_happened_while_a_pair_was_proven_does_not_count() -> None:
    made = window(at(1, transfers=1, itl_buckets={0.1: 1, INF: 1}))
    made.proof(at(3, transfers=3, itl_buckets={0.1: 3, INF: 4}), begins=True)
    made.canary_begins()
    made.canary_ends({"prefills": 1, "prefill_s": 1.0, "queued": 1, "queue_s": 0.0}, answered=True)
    made.add(at(3.5, transfers=4, itl_buckets={0.1: 3, INF: 5}))
    made.proof(at(4, transfers=9, itl_buckets={0.1: 9, 0.2: 11, INF: 11}), begins=False)
    made.add(at(5, transfers=10, itl_buckets={0.1: 9, 0.2: 12, INF: 13}))
    assert grown(made, "transfers") == [3]
    old, new = made.ends() or (at(0), at(0))
    buckets = {bound: count - old.itl_buckets.get(bound, 0) for bound, count in new.itl_buckets.items()}
    assert buckets == {0.1: 2, 0.2: 1, INF: 5}


def test_gauges_may_fall() -> None:
    assert window(at(1, running=5, waiting=3), at(2)).ends() is not None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=12))
def test_growth_is_never_negative(values: list[float]) -> None:
    made = EngineWindow()
    for second, value in enumerate(values):
        made.add(at(second, queue_s=value, queued=value))
        if ends := made.ends():
            assert ends[1].queue_s >= ends[0].queue_s


# requests


def test_requests_leave_the_window() -> None:
    made = RequestWindow(60)
    made.add(record(id="old"), now=0)
    made.add(record(id="new"), now=50)
    assert [one.id for one in made.recent(60)] == ["old", "new"]
    assert [one.id for one in made.recent(61)] == ["new"]
    assert made.recent(200) == []


def test_dynctls_own_proofs_do_not_count() -> None:
    made = RequestWindow()
    made.add(record(directed=True), now=1)
    assert (made.recent(1), made.rate_per_s(1)) == ([], 0.0)


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    made = RequestWindow(60)
    for second in range(40):
        made.add(record(), now=second)
    assert made.rate_per_s(39) == pytest.approx(1.1)
    assert made.rate_per_s(100) == 0.0


# statistics


@pytest.mark.parametrize(("count", "q", "value"), [
    (1, 0.5, 1), (1, 0.99, 1), (2, 0.5, 1), (3, 0.5, 2), (100, 0.99, 99), (101, 0.99, 100), (1000, 0.99, 990),
    (10, 0.0, 1), (10, 1.0, 10),
])  # fmt: skip
def test_percentiles(count: int, q: float, value: float) -> None:
    assert percentile([float(number) for number in range(1, count + 1)], q) == value


def test_a_percentile_of_nothing() -> None:
    assert percentile([], 0.5) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_percentiles_are_nearest_rank(values: list[float], q: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, q)
    assert found is not None
    hundredths = round(q * 100)
    assert sum(value <= found for value in ordered) * 100 >= hundredths * len(ordered)
    assert sum(value < found for value in ordered) * 100 < hundredths * len(ordered)


@pytest.mark.parametrize(("before", "after", "median"), [
    ({}, {}, None),
    ({0.01: 5, INF: 5}, {0.01: 5, INF: 5}, None),  # nothing grew
    ({}, {0.01: 0, 0.02: 10, INF: 10}, 0.015),  # half way into its bucket
    ({}, {0.01: 4, INF: 4}, 0.005),  # the first bucket begins at zero
    ({}, {0.01: 5, 0.02: 10, INF: 10}, 0.01),  # just at a bound
    ({0.01: 4, 0.02: 4, INF: 4}, {0.01: 4, 0.02: 8, INF: 8}, 0.015),  # what was there before does not count
    ({}, {0.01: 1, INF: 10}, 0.01),  # beyond the last bound nothing is known but that bound
    ({}, {0.01: 2, 0.02: 2, 0.04: 8, INF: 8}, 0.02 + 0.02 * 2 / 6),
])  # fmt: skip
def test_medians_of_histograms(before: dict[float, float], after: dict[float, float], median: float | None) -> None:
    found = median_of_buckets(before, after)
    assert found == (median if median is None else pytest.approx(median))


BOUNDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0]


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 0.99), min_size=1, max_size=80), st.lists(st.floats(0.0, 2.0), max_size=20))
def test_the_median_of_a_histogram_is_in_the_bucket_of_the_true_one(values: list[float], earlier: list[float]) -> None:
    def buckets(seen: list[float]) -> dict[float, float]:
        return {bound: float(sum(value <= bound for value in seen)) for bound in (*BOUNDS, INF)}

    found = median_of_buckets(buckets(earlier), buckets(earlier + values))
    true = sorted(values)[math.ceil(len(values) / 2) - 1]
    upper = next(bound for bound in BOUNDS if true <= bound)
    lower = max((bound for bound in BOUNDS if bound < true), default=0.0)
    assert found is not None
    assert lower - 1e-12 <= found <= upper + 1e-12


# the split


def test_nothing_is_known_of_no_requests() -> None:
    found = split([], [], [], [])
    assert (found.p50, found.p99, found.requests, found.window_s) == (None, None, 0, 60.0)
    assert found.split == {"queue": None, "prefill": None, "handover": None}
    assert set(found.window.values()) == {None}
    assert set(found.window) == {
        *("prefill_queue", "prefill_compute", "transfer", "first_decode", "unattributed", "gigabytes_per_s")
    }


def test_the_parts_of_one_request_add_up() -> None:
    found = split([record(0.5, 31.0, 30.5)], [], [], [])
    assert found.p50 == found.p99 == 62.0
    assert sum(part for part in found.split.values() if part is not None) == found.p50


def test_only_streamed_requests_have_a_ttft() -> None:
    found = split([record(), record(None, None, None, streamed=False)], [], [], [])
    assert (found.requests, found.p50) == (1, 30.0)


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(0, 1e4)] * 3), min_size=1, max_size=40))
def test_parts_are_medians(parts: list[tuple[float, float, float]]) -> None:
    found = split([record(*part) for part in parts], [], [], [])
    expected = {
        name: statistics.median(part[at] for part in parts) for at, name in enumerate(("queue", "prefill", "handover"))
    }
    assert found.split == expected
    assert found.p50 is not None
    assert found.p99 is not None
    assert found.p50 <= found.p99


def disaggregated() -> tuple[EngineWindow, EngineWindow]:
    """Two seconds of a prefill and a decode worker: 4 prompts, 4 transfers of 5 ms, an ITL of 10 to 20 ms."""
    prefill = window(at(0), at(2, queued=4, queue_s=0.008, prefills=4, prefill_s=0.1))
    decode = window(at(0), at(2, transfers=4, transfer_s=0.02, kv_bytes=4e6, itl_buckets={0.01: 0, 0.02: 8, INF: 8}))
    return prefill, decode


def test_the_engines_part_of_the_split() -> None:
    prefill, decode = disaggregated()
    found = split([record(handover=30.0)], [prefill], [decode], [decode]).window
    assert found == {
        "prefill_queue": pytest.approx(2.0),
        "prefill_compute": pytest.approx(25.0),
        "transfer": pytest.approx(5.0),
        "first_decode": pytest.approx(15.0),
        "unattributed": pytest.approx(10.0),
        "gigabytes_per_s": pytest.approx(0.2),
    }


def test_unattributed_may_be_negative_and_is_not_hidden() -> None:
    prefill, decode = disaggregated()
    assert split([record(handover=12.0)], [prefill], [decode], [decode]).window["unattributed"] == pytest.approx(-8.0)


def test_unattributed_is_not_known_where_a_part_is_missing() -> None:
    prefill, decode = disaggregated()
    no_itl = window(at(0), at(2, transfers=4, transfer_s=0.02))
    no_transfer = window(at(0), at(2, itl_buckets={0.01: 8, INF: 8}))
    for records, engine in (
        ([record()], no_itl),
        ([record()], no_transfer),
        ([], decode),
        ([record(mode="decode-only", handover=None)], decode),
    ):
        assert split(records, [prefill], [engine], [engine]).window["unattributed"] is None


def test_only_unattributed_depends_on_the_frontends_clock() -> None:
    prefill, decode = disaggregated()
    one = split([record(handover=30.0)], [prefill], [decode], [decode]).window
    two = split([record(5.0, 99.0, 70.0)], [prefill], [decode], [decode]).window
    assert {name for name in one if one[name] != two[name]} == {"unattributed"}


def test_where_prefill_pushes_it_is_the_one_that_moves() -> None:
    pushed = window(at(0), at(2, transfers=2, transfer_s=0.002, kv_bytes=1e6, queued=1, queue_s=0.001))
    decode = window(at(0), at(2, itl_buckets={0.01: 8, INF: 8}))
    found = split([record()], [pushed], [decode], [pushed]).window
    assert (found["transfer"], found["gigabytes_per_s"]) == (pytest.approx(1.0), pytest.approx(0.5))


def test_several_engines_are_taken_together() -> None:
    decodes = [
        window(at(0), at(1, transfers=n, transfer_s=n * s, itl_buckets={0.01: 1, INF: 1}))
        for n, s in ((1, 0.1), (3, 0.02))
    ]
    found = split([record()], [], decodes, decodes).window
    assert found["transfer"] == pytest.approx(40.0)
    assert found["first_decode"] == pytest.approx(5.0)
    idle = [EngineWindow(), window(at(5))]
    assert split([record()], [], [*decodes, *idle], [*decodes, *idle]).window == found


def test_the_document_has_only_numbers_and_nulls() -> None:
    prefill, decode = disaggregated()
    found = msgspec.json.decode(msgspec.json.encode(split([record()], [prefill], [decode], [decode])))
    for value in itertools.chain(found["split"].values(), found["window"].values()):
        assert value is None or isinstance(value, int | float)
