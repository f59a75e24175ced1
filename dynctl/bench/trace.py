"""Recorded traffic: Mooncake traces (JSON lines) and ShareGPT files (as vLLM's tools read them)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

BLOCK_TOKENS = 512
"""Of Mooncake's hash_ids."""
MAX_ROWS = 1_000_000


class TraceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One request: when (seconds from the first, None where the trace has no times), how long, sharing which blocks.

    `text`: the prompt itself, where the trace has it.
    """

    at_s: float | None = None
    input_tokens: int = 0
    output_tokens: int
    hash_ids: tuple[int, ...] = ()
    block_tokens: int = BLOCK_TOKENS
    text: str | None = None


class _Mooncake(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


class _Turn(msgspec.Struct):
    value: str = ""
    content: str = ""


class _ShareGpt(msgspec.Struct):
    conversations: list[_Turn] = []
    conversation: list[_Turn] = []


class TraceError(ValueError):
    """A trace that can't be replayed: the message says what is wrong with it, `line` where (from 1)."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def read_trace(data: bytes, output_tokens: int) -> list[TraceRow]:
    """The rows of a trace; TraceError for anything else. `output_tokens`: for ShareGPT, which has no counts."""
    rows = list(_sharegpt(data, output_tokens)) if data.lstrip()[:1] == b"[" else list(_mooncake(data))
    if not rows:
        raise TraceError("has no requests")
    times = [row.at_s for row in rows if row.at_s is not None]
    first = min(times, default=0.0)
    return [
        msgspec.structs.replace(row, at_s=row.at_s - first if row.at_s is not None else None)
        for row in sorted(rows, key=lambda row: row.at_s or 0.0)
    ]


def _mooncake(data: bytes) -> Iterator[TraceRow]:
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        if number > MAX_ROWS:
            raise TraceError(f"has more than {MAX_ROWS:,} lines", number)
        try:
            row = msgspec.json.decode(line, type=_Mooncake)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TraceError(f"is not a row of a Mooncake trace: {error}", number) from None
        if row.timestamp < 0 or row.input_length < 1 or row.output_length < 1:
            raise TraceError("needs a timestamp of 0 or more, and lengths of 1 or more", number)
        yield TraceRow(
            at_s=row.timestamp / 1000,
            input_tokens=row.input_length,
            output_tokens=row.output_length,
            hash_ids=tuple(row.hash_ids),
        )


def _sharegpt(data: bytes, output_tokens: int) -> Iterator[TraceRow]:
    try:
        rows: Any = msgspec.json.decode(data, type=list[_ShareGpt])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TraceError(f"is neither a Mooncake trace nor a ShareGPT file: {error}") from None
    for row in rows[:MAX_ROWS]:
        turns = row.conversations or row.conversation
        text = (turns[0].value or turns[0].content) if len(turns) > 1 else ""
        if text:  # as vLLM's tools do: the first question of every conversation that has an answer
            yield TraceRow(output_tokens=output_tokens, text=text)
