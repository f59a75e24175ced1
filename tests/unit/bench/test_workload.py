"""The workload: lengths as written, the same for every arm, never the same twice, the load whole while it counts."""

from __future__ import annotations

import statistics
from itertools import pairwise
from random import Random

import msgspec
import pytest

from dynctl.bench.arrivals import OpenLoop, arrivals
from dynctl.bench.lengths import Lengths, parse_lengths
from dynctl.bench.prompts import Prompts, Vocabulary
from dynctl.bench.trace import TraceError, read_trace
from dynctl.bench.workload import Workload, closed, opened, replayed

VOCABULARY = Vocabulary(tokens={"river": 1, "harbour": 2, "breakwater": 3}, filler=" a")


def count(text: str) -> int:
    return sum(VOCABULARY.tokens.get(word, 1) for word in text.split())


def workload(**changes: object) -> Workload:
    base: dict[str, object] = {"isl": Lengths(40, 60), "osl": Lengths(8, 8), "requests": 12, "concurrency": 3}
    return Workload(**{**base, "model": "m", "nonce": "n", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("3000", 3000, 3000),
        ("3000±10%", 2700, 3300),
        ("3000+-10%", 2700, 3300),
        ("150 ± 50", 100, 200),
        ("100-500", 100, 500),
        ("5±100%", 1, 10),
    ],
)
def test_lengths(text: str, low: int, high: int) -> None:
    assert parse_lengths(text) == Lengths(low, high)


@pytest.mark.parametrize("text", ["", "many", "-5", "500-100", "3000±", "3000±120%", "0", "9999999", "10±%"])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_lengths(text)


def test_prompts_have_exactly_the_tokens_asked_for() -> None:
    """Whatever words are drawn, the filler makes it even; overhead of the engine's own is part of the length."""
    prompts = Prompts(msgspec.structs.replace(VOCABULARY, overhead=4), seed=1, nonce="x")
    for number in range(30):
        made = prompts.make(number, 20 + number)
        assert count(made.text) + 4 == made.tokens == 20 + number


def test_a_nonce_makes_another_beginning_and_the_same_rest() -> None:
    """So that no prefix cache helps a later round, and both arms get the same."""
    first, again, other = (Prompts(VOCABULARY, seed=1, nonce=nonce).make(3, 60).text for nonce in ("a", "a", "b"))
    assert first == again
    assert first.split()[:4] != other.split()[:4]
    assert first.split()[-10:] == other.split()[-10:]


def test_shared_prefixes() -> None:
    """Prompts of a group begin alike, those of another do not."""
    prompts = Prompts(VOCABULARY, seed=1, nonce="x", prefix_tokens=50, prefixes=2)
    texts = [prompts.make(number, 80).text for number in range(4)]
    assert texts[0][:120] == texts[2][:120] != texts[1][:120]
    assert all(count(text) == 80 for text in texts)
    assert texts[0] != texts[2]


def test_a_closed_loop_has_ramp_and_tail_of_its_concurrency() -> None:
    sessions = closed(workload(), VOCABULARY, 0)
    assert [s.shots[0].phase for s in sessions] == ["ramp"] * 3 + ["measured"] * 12 + ["tail"] * 3
    assert sessions == closed(workload(), VOCABULARY, 0), "both arms get the same"
    bodies = {shot.body for s in (*sessions, *closed(workload(), VOCABULARY, 1)) for shot in s.shots}
    assert len(bodies) == 36, "no prompt comes twice"
    body = msgspec.json.decode(sessions[4].shots[0].body)
    assert body["stream_options"] == {"include_usage": True}
    assert count(body["prompt"]) == sessions[4].shots[0].input_tokens


def test_turns_carry_the_conversation() -> None:
    """Each turn begins with all that was said before, and its length is that of the whole."""
    (session, *_) = closed(workload(turns=3, endpoint="chat"), VOCABULARY, 0)
    messages = [msgspec.json.decode(shot.body)["messages"] for shot in session.shots]
    assert [len(m) for m in messages] == [1, 3, 5]
    assert messages[2][:3] == messages[1]
    for shot, said in zip(session.shots, messages, strict=True):
        assert sum(count(m["content"]) for m in said) == shot.input_tokens


@pytest.mark.parametrize(
    ("kind", "burstiness", "variation"), [("constant", 1, 0), ("poisson", 1, 1), ("gamma", 4, 0.5)]
)
def test_arrivals(kind: str, burstiness: float, variation: float) -> None:
    """Their rate, and the coefficient of variation of their gaps: gamma's is 1/sqrt(shape)."""
    times = arrivals(OpenLoop(rate=10, kind=kind, burstiness=burstiness), 4000, Random(2))  # type: ignore[arg-type]
    gaps = [b - a for a, b in pairwise(times)]
    assert statistics.fmean(gaps) == pytest.approx(0.1, rel=0.05)
    assert statistics.stdev(gaps) / statistics.fmean(gaps) == pytest.approx(variation, abs=0.05)


def test_a_ramp_of_the_rate() -> None:
    """Over 10 s to 10/s: 50 arrivals, half of them in the last 3 s of it."""
    times = arrivals(OpenLoop(rate=10, kind="constant", ramp_s=10), 100, Random(2))
    assert times[49] == pytest.approx(10, abs=0.1)
    assert times[24] == pytest.approx(7.07, abs=0.1)
    assert times[99] == pytest.approx(15, abs=0.1)
    assert opened(workload(open=OpenLoop(rate=10, ramp_s=2)), VOCABULARY, 0)[12].shots[0].phase == "measured"


def test_mooncake() -> None:
    """Times from the first row on; the same hash is the same text."""
    rows = read_trace(
        b'{"timestamp": 2000, "input_length": 700, "output_length": 5, "hash_ids": [1, 3]}\n\n'
        b'{"timestamp": 1000, "input_length": 600, "output_length": 9, "hash_ids": [1, 2]}\n',
        0,
    )
    assert [(row.at_s, row.input_tokens) for row in rows] == [(0.0, 600), (1.0, 700)]
    sessions = replayed(workload(), VOCABULARY, 0, rows, speed=2.0)
    assert [s.at_s for s in sessions] == [0.0, 0.5]
    prompts = [msgspec.json.decode(s.shots[0].body)["prompt"] for s in sessions]
    assert [count(p) for p in prompts] == [600, 700]
    shared = next(at for at, (a, b) in enumerate(zip(*prompts, strict=False)) if a != b)
    assert count(prompts[0][:shared]) >= 511


def test_sharegpt() -> None:
    """The first question of every conversation that was answered."""
    data = b'[{"conversations": [{"value": "why"}, {"value": "so"}]}, {"conversations": [{"value": "alone"}]}]'
    (row,) = read_trace(data, 7)
    assert (row.text, row.output_tokens, row.at_s) == ("why", 7, None)


@pytest.mark.parametrize(
    ("data", "said", "line"),
    [
        (b"", "no requests", None),
        (b'{"timestamp": 1}', "input_length", 1),
        (b'{"timestamp": 1, "input_length": 1, "output_length": 1}\nnot json', "not a row", 2),
        (b'{"timestamp": -1, "input_length": 1, "output_length": 1}', "timestamp of 0", 1),
        (b'[{"conversations": 3}]', "ShareGPT", None),
        (b"\xff\xfe", "not a row", 1),
    ],
)
def test_a_wrong_trace_says_where(data: bytes, said: str, line: int | None) -> None:
    with pytest.raises(TraceError, match=said) as caught:
        read_trace(data, 1)
    assert caught.value.line == line
