"""Finding the first non-empty content in a stream of server-sent events."""

from __future__ import annotations

from typing import Any

import msgspec

_MAX_LINE_BYTES = 8 * 1024 * 1024
_CONTENT_KEYS = ("content", "reasoning", "reasoning_content", "text", "tool_calls", "function_call", "refusal")


class _Choice(msgspec.Struct):
    text: str | None = None
    token_ids: list[int] | None = None
    delta: dict[str, Any] | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] | None = None
    delta: dict[str, Any] | str | None = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Event)


class FirstContent:
    """Feed it body bytes until `feed` says True: then the first content has been seen, and no more need be fed.

    Content is text, reasoning, a tool call or token ids that are not empty; the chunk that only names the role is
    not. `error` is the message of an error event that came before any content.
    """

    __slots__ = ("_rest", "_skipping", "error", "seen")

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False
        self.seen = False
        self.error: str | None = None

    def feed(self, data: bytes) -> bool:
        """Look at more of the stream; True once content has been seen."""
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if self._skipping:
                self._skipping = False
            elif line.startswith(b"data:") and self._look(line[5:].strip()):
                self.seen = True
                return True
        if len(self._rest) > _MAX_LINE_BYTES:
            self._rest, self._skipping = b"", True
        return False

    def _look(self, payload: bytes) -> bool:
        if not payload.startswith(b"{"):
            return False
        try:
            event = _DECODER.decode(payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False
        if event.error is not None and self.error is None:
            message = event.error.get("message") if isinstance(event.error, dict) else event.error
            self.error = str(message)
        if _has_content(event.delta):
            return True
        return any(choice.text or choice.token_ids or _has_content(choice.delta) for choice in event.choices or ())


def _has_content(delta: dict[str, Any] | str | None) -> bool:
    if isinstance(delta, dict):
        return any(delta.get(key) for key in _CONTENT_KEYS)
    return bool(delta)
