"""The workload: what is asked of every arm, round by round, the same of each."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

import msgspec

from dynctl.bench.arrivals import OpenLoop, arrivals, ramp_count
from dynctl.bench.job import ID_PREFIX, Session, Shot
from dynctl.bench.lengths import Lengths
from dynctl.bench.prompts import Prompts, Vocabulary
from dynctl.bench.sample import Phase
from dynctl.bench.trace import TraceRow

Endpoint = Literal["completions", "chat"]
PATHS: dict[Endpoint, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
OPEN_EDGE = 0.1
"""Share of an open loop's requests that come before and after those that count."""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. `requests`: that count, per round and arm. `concurrency` of a closed loop, `open` of an open
    one, never both but as a cap. `turns`: requests of a conversation, each with the whole of it so far; `prefix_tokens`
    are shared by the prompts of each of `prefixes` groups. `nonce`: see Prompts."""

    isl: Lengths
    osl: Lengths
    requests: int
    rounds: int = 1
    concurrency: int = 0
    open: OpenLoop | None = None
    endpoint: Endpoint = "completions"
    model: str = ""
    seed: int = 0
    nonce: str = ""
    turns: int = 1
    prefix_tokens: int = 0
    prefixes: int = 1
    ignore_eos: bool = True
    trace: str | None = None


def closed(workload: Workload, vocabulary: Vocabulary, number: int, warm: int = 0) -> tuple[Session, ...]:
    """Round `number` of a closed loop: every slot's first session is ramp, its last one tail: the load stays whole
    while those that count are served, and no long request is dropped for being long. `warm`: further ramp sessions."""
    maker = _Maker(workload, vocabulary, number)
    sessions = -(-workload.requests // workload.turns)
    edge = workload.concurrency
    plan: list[tuple[Phase, int]] = [("ramp", edge + warm), ("measured", sessions), ("tail", edge)]
    return tuple(Session(maker.shots(phase)) for phase, count in plan for _ in range(count))


def opened(workload: Workload, vocabulary: Vocabulary, number: int) -> tuple[Session, ...]:
    """Round `number` of an open loop, at times that follow from the seed and the round."""
    loop = workload.open
    assert loop is not None  # noqa: S101 - the caller chose it for that
    maker = _Maker(workload, vocabulary, number)
    sessions = -(-workload.requests // workload.turns)
    edge = max(2, round(sessions * OPEN_EDGE))
    begin = edge + ramp_count(loop)
    times = arrivals(loop, begin + sessions + edge, Random(f"{workload.seed}-arrivals-{number}"))
    plan: list[tuple[Phase, int]] = [("ramp", begin), ("measured", sessions), ("tail", edge)]
    phases = [phase for phase, count in plan for _ in range(count)]
    return tuple(Session(maker.shots(phase), at) for phase, at in zip(phases, times, strict=True))


def replayed(
    workload: Workload, vocabulary: Vocabulary, number: int, rows: list[TraceRow], speed: float = 1.0
) -> tuple[Session, ...]:
    """A trace: its times, lengths and shared blocks. Every request counts: a trace has no load to be whole at."""
    maker = _Maker(workload, vocabulary, number)
    return tuple(Session((maker.of_row(row),), row.at_s / speed if row.at_s is not None else None) for row in rows)


class _Maker:
    """Makes shots with rising numbers."""

    def __init__(self, workload: Workload, vocabulary: Vocabulary, number: int) -> None:
        self._workload, self._vocabulary = workload, vocabulary
        self._nonce = f"{workload.nonce}-{number}"
        self._prompts = Prompts(vocabulary, workload.seed, self._nonce, workload.prefix_tokens, workload.prefixes)
        self._random = Random(f"{workload.seed}-lengths-{number}")
        self._number = 0

    def shots(self, phase: Phase) -> tuple[Shot, ...]:
        """One session. Further turns add the answer that was to be expected, by the seed, and a new question."""
        talk: list[dict[str, str]] = []
        tokens, out = 0, []
        for turn in range(self._workload.turns):
            made = self._prompts.make(self._number, self._workload.isl.draw(self._random))
            asked = self._workload.osl.draw(self._random)
            overhead = self._vocabulary.overhead if turn else 0
            tokens += made.tokens - overhead
            talk.append({"role": "user", "content": made.text})
            out.append(self._shot(phase, talk, asked, tokens))
            answer = self._vocabulary.text(Random(f"{self._workload.seed}-answer-{self._number}"), asked)
            talk.append({"role": "assistant", "content": answer})
            tokens += asked
        return tuple(out)

    def of_row(self, row: TraceRow) -> Shot:
        """A row of a trace. Blocks of the same hash have the same text, in every round its own."""
        if row.text is not None:
            return self._shot("measured", [{"role": "user", "content": row.text}], row.output_tokens, None)
        left, pieces = max(row.input_tokens - self._vocabulary.overhead, 1), []
        for block in row.hash_ids:
            size = min(row.block_tokens, left)
            pieces.append(self._vocabulary.text(Random(f"{self._nonce}-block-{block}"), size))
            left -= size
        if left > 0:
            pieces.append(self._vocabulary.text(Random(f"{self._nonce}-rest-{self._number}"), left))
        text = "".join(pieces)
        return self._shot("measured", [{"role": "user", "content": text}], row.output_tokens, row.input_tokens)

    def _shot(self, phase: Phase, talk: list[dict[str, str]], asked: int, tokens: int | None) -> Shot:
        workload = self._workload
        body: dict[str, Any] = {"model": workload.model, "max_tokens": asked, "temperature": 0, "stream": True}
        body["stream_options"] = {"include_usage": True}
        if workload.ignore_eos:
            body["ignore_eos"] = True
        if workload.endpoint == "chat":
            body["messages"] = talk
        else:
            body["prompt"] = "".join(part["content"] for part in talk)
        self._number += 1
        return Shot(
            id=f"{ID_PREFIX}{self._nonce}-{self._number}",
            body=msgspec.json.encode(body),
            phase=phase,
            asked_tokens=asked,
            input_tokens=tokens,
        )
