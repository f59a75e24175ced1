"""Routing policies: what each chooses, and what that does to simulated pools."""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections import Counter, OrderedDict
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynctl.frontend.ask import Ask, ask_of
from dynctl.frontend.body import Fields, parse_fields
from dynctl.frontend.chooser import Chooser
from dynctl.frontend.prefixes import BLOCK_BYTES, Prefixes, blocks_of
from dynctl.frontend.routing import POLICIES, SKEW_TOKENS, Snapshot, Worker, cache_aware, least_loaded, session
from dynctl.http.message import Headers, Request
from dynctl.http.origin import Origin
from dynctl.topology.schema import Frontend


def workers(count: int, role: str = "prefill") -> tuple[Worker, ...]:
    return tuple(
        Worker(id=f"{role}-{i}", role=role, origin=Origin("127.0.0.1", 9000 + i), state="ready") for i in range(count)
    )


def request(fields: dict[str, object], headers: Headers | None = None) -> tuple[Request, Fields]:
    body = json.dumps(fields).encode()
    made = Request(
        method="POST",
        target=b"/v1/completions",
        path="/v1/completions",
        headers=headers or [],
        body=body,
        received=0.0,
        http10=False,
        keep_alive=True,
    )
    return made, parse_fields(body)


def test_the_topology_names_all_policies() -> None:
    assert get_args(Frontend.model_fields["routing"].annotation)[: len(POLICIES)] == tuple(POLICIES)


# single decisions


@given(
    name=st.sampled_from(sorted(POLICIES)),
    count=st.integers(0, 5),
    turn=st.integers(0, 99),
    load=st.dictionaries(st.sampled_from([f"prefill-{i}" for i in range(7)]), st.integers(0, 99_999)),
    matched=st.dictionaries(st.sampled_from([f"prefill-{i}" for i in range(7)]), st.integers(0, 999)),
    tokens=st.integers(0, 999),
    name_of_session=st.none() | st.binary(max_size=9),
    dice=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_every_policy_chooses_a_candidate_where_there_is_one(
    name: str,
    count: int,
    turn: int,
    load: dict[str, int],
    matched: dict[str, int],
    tokens: int,
    name_of_session: bytes | None,
    dice: tuple[float, float],
) -> None:
    candidates = workers(count)
    snapshot = Snapshot(
        candidates=candidates,
        turn=turn,
        outstanding=load,
        tokens=tokens,
        matched=matched,
        session=name_of_session,
        dice=dice,
    )
    chosen = POLICIES[name](snapshot)
    assert chosen in candidates if candidates else chosen is None
    assert POLICIES[name](snapshot) is chosen


def test_the_least_loaded_by_tokens_and_equals_in_turn() -> None:
    three = workers(3)
    assert (
        least_loaded(Snapshot(candidates=three, outstanding={"prefill-0": 9, "prefill-1": 3, "prefill-2": 4}))
        is (three[1])
    )
    assert [least_loaded(Snapshot(candidates=three, turn=turn)) for turn in range(4)] == [*three, three[0]]


def test_power_of_two_never_takes_the_worst_of_three() -> None:
    load = {"prefill-0": 1, "prefill-1": 2, "prefill-2": 3}
    dice = [i / 12 for i in range(12)]
    seen = {
        chosen.id
        for one, other in itertools.product(dice, dice)
        if (chosen := POLICIES["power-of-two"](Snapshot(candidates=workers(3), outstanding=load, dice=(one, other))))
    }
    assert seen == {"prefill-0", "prefill-1"}


def test_only_the_sessions_of_a_lost_worker_move() -> None:
    four = workers(4)
    names = [b"user-%d" % i for i in range(400)]
    before = {name: session(Snapshot(candidates=four, session=name)) for name in names}
    after = {name: session(Snapshot(candidates=four[:3], session=name)) for name in names}
    assert {name for name in names if before[name] != after[name]} == {n for n in names if before[n] is four[3]}
    assert min(Counter(w.id for w in before.values() if w).values()) > 60  # of 100


def test_cache_aware_goes_where_half_of_the_prompt_is_known_unless_that_worker_is_swamped() -> None:
    two = workers(2)

    def chosen(matched: int, load: int) -> str | None:
        worker = cache_aware(
            Snapshot(candidates=two, tokens=1000, matched={"prefill-1": matched}, outstanding={"prefill-1": load})
        )
        return worker.id if worker else None

    assert chosen(500, SKEW_TOKENS) == "prefill-1"
    assert chosen(499, 1) == "prefill-0"
    assert chosen(1000, SKEW_TOKENS + 1) == "prefill-0"


# what a request tells


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        ({"prompt": "x" * 400, "max_tokens": 7}, [], (100, 7, None)),
        ({"prompt": "hi", "max_tokens": 10**9, "user": "u"}, [], (1, 256, b'"u"')),
        ({"messages": [{"role": "user", "content": "y" * 370}], "max_completion_tokens": 5}, [], (100, 5, None)),
        ({"prompt": "", "user": "u", "prompt_cache_key": "k"}, [], (1, 256, b'"k"')),
        ({"user": "u"}, [(b"x-session-id", b"s")], (1, 256, b"s")),
        ({"user": ["odd"], "max_tokens": "many", "prompt": None}, [], (1, 256, None)),
        ({"max_tokens": -3, "user": ""}, [], (1, 256, None)),
    ],
)
def test_estimates(fields: dict[str, object], headers: Headers, expected: tuple[int, int, bytes | None]) -> None:
    ask = ask_of(*request(fields, headers), prefixes=False)
    assert (ask.tokens, ask.output, ask.session) == expected
    assert ask.blocks == ()


def test_round_robin_looks_at_nothing() -> None:
    assert Chooser().ask(*request({"prompt": "x" * 999, "user": "u"})) == Ask()


# prompts that were seen


def test_equal_beginnings_are_found_and_nothing_behind_a_difference() -> None:
    prefixes = Prefixes()
    text = random.Random(1).randbytes(BLOCK_BYTES * 8)
    prefixes.add("a", blocks_of(text))
    prefixes.add("b", blocks_of(text[: BLOCK_BYTES * 3]))
    other = text[: BLOCK_BYTES * 5] + b"?" + text[BLOCK_BYTES * 5 + 1 :]
    assert prefixes.matched(blocks_of(other)) == {"a": 5, "b": 3}
    assert prefixes.matched(blocks_of(text + b"more")) == {"a": 8, "b": 3}
    assert prefixes.matched(blocks_of(b"?" + text[1:])) == {}
    prefixes.forget("a")
    assert prefixes.matched(blocks_of(text)) == {"b": 3}


def test_memory_is_bounded_and_shared_beginnings_stay_longest() -> None:
    prefixes = Prefixes(max_blocks=20)
    chance = random.Random(2)
    system = chance.randbytes(BLOCK_BYTES * 4)
    for _ in range(50):
        prefixes.add("a", blocks_of(system + chance.randbytes(BLOCK_BYTES * 8)))
    assert prefixes.matched(blocks_of(system)) == {"a": 4}
    prefixes.add("a", blocks_of(chance.randbytes(BLOCK_BYTES * 30)))
    assert prefixes.matched(blocks_of(system)) == {}


def test_a_worker_that_went_out_of_service_has_seen_nothing() -> None:
    two = workers(2)
    chooser = Chooser("cache-aware", chance=random.Random(0))
    ask = chooser.ask(*request({"prompt": "x" * 4000}))
    chooser.choose("prefill", two, ask)  # a turn, so that the next free choice is the other
    chooser.began(two[0], ask)
    chooser.ended(two[0], ask)
    assert chooser.choose("prefill", two, ask) is two[0]
    chooser.gone(two[0])
    assert chooser.choose("prefill", two, ask) is two[0]  # the third turn begins with it
    assert chooser.choose("prefill", two, ask) is two[1]


# simulations


def busiest(name: str, *, seed: int, count: int = 4) -> float:
    """Mean waiting time, in seconds, of prompts of very different lengths on `count` workers of 10,000 tokens/s."""
    chance = random.Random(seed)
    chooser = Chooser(name, chance=random.Random(seed))
    pool = workers(count)
    free = dict.fromkeys((worker.id for worker in pool), 0.0)
    ends: list[tuple[float, int, Worker, Ask]] = []
    now = waited = 0.0
    for number in range(2000):
        now += chance.expovariate(6.0)
        while ends and ends[0][0] <= now:
            _, _, worker, ask = heapq.heappop(ends)
            chooser.ended(worker, ask)
        tokens = 20_000 if chance.random() < 0.2 else 500
        ask = Ask(tokens=tokens)
        chosen = chooser.choose("prefill", pool, ask)
        assert chosen is not None
        chooser.began(chosen, ask)
        begin = max(now, free[chosen.id])
        waited += begin - now
        free[chosen.id] = begin + tokens / 10_000
        heapq.heappush(ends, (free[chosen.id], number, chosen, ask))
    return waited / 2000


def test_fewest_tokens_beat_turns_where_prompts_differ_in_length() -> None:
    for seed in range(5):
        turns = busiest("round-robin", seed=seed)
        assert busiest("least-loaded", seed=seed) < 0.7 * turns
        assert busiest("power-of-two", seed=seed) < 0.9 * turns


def hit_rate(name: str, *, sessions: int = 12, rounds: int = 8) -> tuple[float, Counter[str]]:
    """Share of prompt blocks found in the caches (LRU, of 512 blocks) of two prefill workers, in chats of many turns;
    and prompts by worker."""
    chance = random.Random(3)
    chooser = Chooser(name, chance=random.Random(4))
    pool = workers(2)
    caches: dict[str, OrderedDict[int, None]] = {worker.id: OrderedDict() for worker in pool}
    texts = [b"" for _ in range(sessions)]
    hits = asked = 0
    load: Counter[str] = Counter()
    for _ in range(rounds):
        for number in chance.sample(range(sessions), sessions):
            texts[number] += bytes(chance.choices(b"abcdefgh", k=BLOCK_BYTES * 6))
            made, fields = request({"prompt": texts[number].decode(), "user": f"u{number}"})
            ask = chooser.ask(made, fields)
            chosen = chooser.choose("prefill", pool, ask)
            assert chosen is not None
            load[chosen.id] += 1
            chooser.began(chosen, ask)
            cache = caches[chosen.id]
            blocks = blocks_of(bytes(fields["prompt"]))
            found = next((i for i, block in enumerate(blocks) if block not in cache), len(blocks))
            hits, asked = hits + found, asked + len(blocks)
            for block in reversed(blocks):
                cache[block] = None
                cache.move_to_end(block)
            while len(cache) > 512:
                cache.popitem(last=False)
            chooser.ended(chosen, ask)
    return hits / asked, load


def test_chats_find_their_cache_by_prefix_and_by_session_and_not_by_turns() -> None:
    turns, _ = hit_rate("round-robin")
    for name in ("cache-aware", "session"):
        rate, load = hit_rate(name)
        assert rate > turns + 0.15
        assert min(load.values()) > 0.2 * sum(load.values())
