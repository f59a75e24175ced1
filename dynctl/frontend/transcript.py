"""What a client has of a stream so far, kept so exactly that another worker can go on from it: pure."""

from __future__ import annotations

from typing import Any

import msgspec

_DECODE = msgspec.json.Decoder().decode
_ENCODE = msgspec.json.Encoder().encode
_HEAD = ("id", "object", "created", "model")
_CUT_SHORT = ("abort", "error")
"""How vLLM ends a sequence that it did not end by itself: when it is stopped, and when its KV was lost."""
DONE = b"data: [DONE]\n\n"


class Transcript:
    """Takes a stream's events in vLLM's shape, token ids in them, and makes those that the client gets.

    `prompt`: its token ids, once they came. `ids`: those whose text the client has. A token without text (the
    beginning of a character, as a rule) is held back until the text comes, so that the text never lags behind `ids`.
    After `carry_on` the events are those of a completion that goes on from `ids`; they are given the first stream's
    head and shape, and usage counts as of one request. `broken`: an event said that the engine failed.
    """

    def __init__(self, *, chat: bool, wants_ids: bool, wants_usage: bool) -> None:
        self._chat = chat
        self._wants_ids = wants_ids
        self._wants_usage = wants_usage
        self.prompt: list[int] | None = None
        self.ids: list[int] = []
        self.broken: str | None = None
        self.finished = False
        self._exact = True
        self._before: int | None = None
        self._head: dict[str, Any] = {}
        self._held: list[bytes] = []
        self._held_ids: list[int] = []
        self._usage_sent = False
        self._over = False

    @property
    def can_go_on(self) -> bool:
        """Whether another worker can go on from here, or there is nothing left to make."""
        return self.finished or (self.prompt is not None and self._exact)

    def carry_on(self) -> None:
        """The next events come from another worker, which was given `prompt` and `ids`."""
        self._before = len(self.ids)
        self._held, self._held_ids = [], []
        self.broken = None

    def take(self, event: bytes) -> bytes:
        """One event, without the empty line that ends it; what the client is to get for it, perhaps nothing yet."""
        payload = event[5:].strip() if event.startswith(b"data:") else b""
        if not payload.startswith(b"{"):
            self._over = payload == b"[DONE]"
            return event + b"\n\n"
        try:
            chunk: dict[str, Any] = _DECODE(payload)
        except (msgspec.DecodeError, RecursionError):
            self._exact = False
            return event + b"\n\n"
        error = chunk.get("error")
        if error is not None:
            return self._failed(event, error)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return self._without_choice(chunk)
        return self._with_choice(chunk, choice)

    def closing(self) -> bytes:
        """What is missing of a stream that broke off after its last token."""
        if self._over:
            return b""
        if not self._wants_usage or self._usage_sent:
            return DONE
        prompt = len(self.prompt or ())
        return _event({**self._head, "choices": [], "usage": _usage({}, prompt, len(self.ids))}) + DONE

    def _failed(self, event: bytes, error: Any) -> bytes:
        code = error.get("code") if isinstance(error, dict) else None
        if isinstance(code, int) and 400 <= code < 500:
            self._exact = False
            return event + b"\n\n"
        self.broken = str(error.get("message") if isinstance(error, dict) else error)
        return b""

    def _without_choice(self, chunk: dict[str, Any]) -> bytes:
        self._usage_sent = self._usage_sent or bool(chunk.get("usage"))
        return _event(self._as_first(chunk))

    def _with_choice(self, chunk: dict[str, Any], choice: dict[str, Any]) -> bytes:
        ids = choice.get("token_ids") or []
        if self._before is None:
            self._learn(chunk, choice)
        text = self._text(choice)
        finish = choice.get("finish_reason")
        if finish in _CUT_SHORT and self.can_go_on:
            self.broken = f"it ended the stream with {finish!r}"
            return b""
        made = self._made(chunk, choice)
        if ids and not text and not finish:
            self._held_ids += ids
            if made:
                self._held.append(made)
            return b""
        self.ids += self._held_ids + ids
        made = b"".join((*self._held, made))
        self._held, self._held_ids = [], []
        self.finished = finish is not None
        return made

    def _learn(self, chunk: dict[str, Any], choice: dict[str, Any]) -> None:
        """What only the first worker's events tell."""
        if not self._head:
            self._head = {name: chunk[name] for name in _HEAD if name in chunk}
        self.prompt = self.prompt or chunk.get("prompt_token_ids") or choice.get("prompt_token_ids")
        delta = choice.get("delta")
        if isinstance(delta, dict) and any(value for name, value in delta.items() if name not in ("role", "content")):
            self._exact = False  # reasoning, a tool call: a parser's state, which no other worker has

    def _text(self, choice: dict[str, Any]) -> Any:
        delta = choice.get("delta")
        return delta.get("content") if isinstance(delta, dict) else choice.get("text")

    def _made(self, chunk: dict[str, Any], choice: dict[str, Any]) -> bytes:
        """The event as the client gets it; nothing for one that is there only because token ids were asked for."""
        chunk = self._as_first(chunk)
        if self._before is not None:
            chunk["choices"] = [self._in_shape(choice)]
        elif not self._wants_ids:
            for holder in (chunk, choice):
                for name in ("prompt_token_ids", "token_ids"):
                    if name in holder:
                        holder[name] = None
            if choice.get("delta") == {} and not choice.get("finish_reason"):
                return b""
        return _event(chunk)

    def _in_shape(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A choice of the completion that goes on, in the first stream's shape."""
        ids = choice.get("token_ids") if self._wants_ids else None
        if not self._chat:
            return {**choice, "prompt_token_ids": None, "token_ids": ids}
        finish = choice.get("finish_reason")
        made = {"index": 0, "delta": {"content": choice.get("text") or ""}, "logprobs": None, "finish_reason": finish}
        if finish:
            made["stop_reason"] = choice.get("stop_reason")
        return {**made, "token_ids": ids}

    def _as_first(self, chunk: dict[str, Any]) -> dict[str, Any]:
        if self._before is None:
            return chunk
        chunk = {**chunk, **self._head}
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            made = self._before + usage.get("completion_tokens", 0)
            chunk["usage"] = _usage(usage, len(self.prompt or ()), made)
        return chunk


def _usage(given: dict[str, Any], prompt: int, completion: int) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "total_tokens": prompt + completion, "completion_tokens": completion}
    return {**given, **counts}


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + _ENCODE(chunk) + b"\n\n"
