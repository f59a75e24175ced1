"""The split of the TTFT: what is a subtraction and what is not known."""

from __future__ import annotations

import itertools
import statistics

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from window_samples import INF, at, record, window

from dynctl.telemetry.window import EngineWindow, split


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
