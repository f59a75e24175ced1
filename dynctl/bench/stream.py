"""What a stream of server-sent events held, worked out afterwards from its reads and their times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

_CONTENT_KEYS = ("content", "reasoning", "reasoning_content", "tool_calls", "function_call", "refusal")


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: dict[str, Any] | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Event)


class Digest(msgspec.Struct, kw_only=True):
    """`chunk_s`: when each chunk with content was read (text, reasoning or a tool call that is not empty: the chunk
    that only names the role does not count). Tokens by the server's `usage`. `error`: what is wrong with the stream."""

    chunk_s: list[float] = []
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str | None = None


def digest(reads: Iterable[tuple[float, bytes]]) -> Digest:
    """The reads of one answer, each with the time it came. A character or a line may be cut anywhere between reads."""
    found, rest, ended = Digest(), b"", False
    for at, data in reads:
        *lines, rest = (rest + data if rest else data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                ended |= _take(found, at, line[5:].strip())
    if found.error is None and not ended:
        found.error = "the stream ended without [DONE]" if found.chunk_s else "what came is no stream of events"
    return found


def _take(found: Digest, at: float, payload: bytes) -> bool:
    """One event's data; whether it was the last."""
    if payload == b"[DONE]":
        return True
    try:
        event = _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found.error = found.error or f"malformed event: {payload[:80].decode(errors='replace')}"
        return False
    if event.error is not None:
        message = event.error.get("message") if isinstance(event.error, dict) else event.error
        found.error = found.error or f"error event: {str(message)[:200]}"
    if event.usage is not None:
        found.input_tokens, found.output_tokens = event.usage.prompt_tokens, event.usage.completion_tokens
    if any(choice.text or _has_content(choice.delta) for choice in event.choices or ()):
        found.chunk_s.append(at)
    return False


def _has_content(delta: dict[str, Any] | None) -> bool:
    return delta is not None and any(delta.get(key) for key in _CONTENT_KEYS)


def refusal(status: int, body: bytes) -> str:
    """An answer that is none, in one line: its status and the server's own words."""
    text = body[:2000].decode(errors="replace").strip()
    try:
        document = msgspec.json.decode(body)
        error = document.get("error", document.get("detail", document.get("message")))
        text = str(error.get("message") if isinstance(error, dict) else error)
    except (msgspec.DecodeError, AttributeError, UnicodeDecodeError, RecursionError):
        pass
    return f"HTTP {status}: {' '.join(text.split())[:200]}".rstrip(": ")
