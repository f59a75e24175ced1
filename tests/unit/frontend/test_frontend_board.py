"""What several processes of a frontend share: load, turns, the retry budget, and sums of what they count."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest

from dynctl.frontend import merge
from dynctl.frontend.ask import Ask
from dynctl.frontend.board import Board, SharedLoad
from dynctl.frontend.chooser import Chooser
from dynctl.frontend.merge import Part
from dynctl.frontend.messages import RequestRecord
from dynctl.frontend.prefixes import BLOCK_BYTES, Prefixes, shared_blocks_of
from dynctl.frontend.retry import Budget, RetryLimits
from dynctl.frontend.routing import Worker
from dynctl.http.origin import Origin

WORKERS = tuple(Worker(id=f"decode-{n}", role="decode", origin=Origin("h", n), state="ready") for n in range(3))
IDS = [worker.id for worker in WORKERS]


def boards(count: int = 2) -> list[Board]:
    first = Board.made(count)
    return [first, *(Board(os.dup(first.descriptor), number, count) for number in range(1, count))]


def named(count: int = 2) -> list[Board]:
    found = boards(count)
    for board in found:
        board.name(IDS)
    return found


def test_each_process_sees_the_load_of_all() -> None:
    loads = [SharedLoad(board) for board in named(3)]
    for number, load in enumerate(loads):
        load.add("decode-1", 10**number)
    assert [load.of(WORKERS) for load in loads] == [{"decode-0": 0, "decode-1": 111, "decode-2": 0}] * 3
    loads[1].add("decode-1", -10)
    assert loads[2].of(WORKERS)["decode-1"] == 101


def test_the_load_of_a_process_that_died_is_gone() -> None:
    found = named()
    loads = [SharedLoad(board) for board in found]
    loads[0].add("decode-0", 5)
    loads[1].add("decode-0", 7)
    found[0].clear(1)
    assert loads[0].of(WORKERS)["decode-0"] == 5


def test_a_worker_without_a_line_counts_for_this_process_alone_until_it_has_one() -> None:
    first, second = boards()
    loads = [SharedLoad(first), SharedLoad(second)]
    loads[1].add("decode-2", 4)
    assert (loads[0].of(WORKERS)["decode-2"], loads[1].of(WORKERS)["decode-2"]) == (0, 4)
    assert first.name(IDS)
    assert not first.name(IDS)
    second.name(first.columns)
    loads[1].add("decode-2", 1)
    assert loads[0].of(WORKERS)["decode-2"] == 5


def test_least_loaded_passes_over_what_another_process_has_loaded() -> None:
    here, there = (Chooser("least-loaded", load=SharedLoad(board)) for board in named())
    ask = Ask(tokens=100, output=10)
    busy = here.choose("decode", WORKERS, ask)
    assert busy is not None
    here.began(busy, ask)
    chosen = [there.choose("decode", WORKERS, ask) for _ in range(6)]
    assert busy not in chosen
    here.ended(busy, ask)
    assert busy in [there.choose("decode", WORKERS, ask) for _ in range(3)]


def test_round_robin_goes_round_over_all_processes() -> None:
    choosers = [Chooser("round-robin", load=SharedLoad(board)) for board in named()]
    chosen = [chooser.choose("decode", WORKERS) for _ in range(3) for chooser in choosers]
    assert chosen == [*WORKERS, *WORKERS]


def test_the_retry_budget_is_one_for_all() -> None:
    first, second = boards()
    first.budget[0] = 2.0
    budgets = [Budget(RetryLimits(ratio=0.5, burst=2.0), board.budget) for board in (first, second)]
    assert [budget.spend() for budget in (*budgets, *budgets)] == [True, True, False, False]
    budgets[0].earn()
    budgets[1].earn()
    assert budgets[0].tokens == 1.0
    assert budgets[1].spend()


def test_blocks_are_alike_in_all_processes_and_end_where_the_texts_part() -> None:
    text = bytes(range(256)) * 2
    code = "from dynctl.frontend.prefixes import shared_blocks_of as f; print(f(bytes(range(256)) * 2))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert str(shared_blocks_of(text)) == other.stdout.strip()
    prefixes = Prefixes()
    prefixes.add("a", shared_blocks_of(text))
    assert prefixes.matched(shared_blocks_of(text[: BLOCK_BYTES * 3] + b"?" * BLOCK_BYTES)) == {"a": 3}


def test_a_chooser_tells_of_prompts_and_hears_of_others() -> None:
    found = named()
    told: list[tuple[str, tuple[int, ...]]] = []
    here = Chooser("cache-aware", load=SharedLoad(found[0]), tell=lambda worker, blocks: told.append((worker, blocks)))
    there = Chooser("cache-aware", load=SharedLoad(found[1]), tell=lambda worker, blocks: None)
    ask = Ask(tokens=64, output=1, blocks=(1, 2, 3, 4))
    here.began(WORKERS[2], ask)
    here.ended(WORKERS[2], ask)
    assert told == [("decode-2", (1, 2, 3, 4))]
    there.saw(*told[0])
    assert [there.choose("decode", WORKERS, ask) for _ in range(3)] == [WORKERS[2]] * 3


def counted(requests: int, in_flight: int, seconds: list[float]) -> Part:
    counter = CounterMetricFamily("dynctl_requests", "Finished", labels=["status"])
    counter.add_metric(["200"], requests)
    histogram = HistogramMetricFamily("dynctl_ttft_seconds", "TTFT", labels=["mode"])
    low = sum(value <= 0.1 for value in seconds)
    histogram.add_metric(["decode-only"], [("0.1", low), ("+Inf", len(seconds))], sum(seconds))
    flying = GaugeMetricFamily("dynctl_requests_in_flight", "Under way", value=in_flight)
    up = GaugeMetricFamily("dynctl_up", "Serves", value=1)
    return merge.part([counter, histogram, flying, up])


def test_counts_and_histograms_are_summed_and_what_all_say_alike_is_said_once() -> None:
    lines = merge.text(merge.merged([counted(3, 1, [0.05]), counted(4, 2, [0.05, 2.0])])).decode().splitlines()
    assert 'dynctl_requests_total{status="200"} 7.0' in lines
    assert "dynctl_requests_in_flight 3.0" in lines
    assert "dynctl_up 1.0" in lines
    assert 'dynctl_ttft_seconds_bucket{le="0.1",mode="decode-only"} 2.0' in lines
    assert 'dynctl_ttft_seconds_bucket{le="+Inf",mode="decode-only"} 3.0' in lines
    assert 'dynctl_ttft_seconds_count{mode="decode-only"} 3.0' in lines


def test_what_a_process_counted_outlives_it_but_not_what_it_had_under_way() -> None:
    gone = merge.lasting(counted(4, 2, [0.05]))
    lines = merge.text(merge.merged([counted(3, 1, []), gone])).decode().splitlines()
    assert 'dynctl_requests_total{status="200"} 7.0' in lines
    assert "dynctl_requests_in_flight 1.0" in lines


def test_one_part_says_what_the_registry_says() -> None:
    class Own:
        def collect(self) -> list[CounterMetricFamily]:
            family = CounterMetricFamily("a", "A \\ b\nc", labels=["x"])
            family.add_metric(['quo"te'], 2)
            return [family]

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Own())  # type: ignore[arg-type]
    assert merge.text(merge.part(registry.collect())) == generate_latest(registry)


@pytest.mark.parametrize("most", [2, 9])
def test_the_last_requests_of_all_are_in_the_order_of_their_ends(most: int) -> None:
    def record(name: str, at: float, total_ms: float) -> RequestRecord:
        return RequestRecord(id=name, at=at, path="/", mode="aggregated", status=200, streamed=False, total_ms=total_ms)

    here, there = [record("long", 1, 5000), record("early", 1, 10)], [record("late", 5, 100)]
    assert [one.id for one in merge.latest([here, there], most)] == ["long", "late", "early"][:most]
