"""Which streams can be carried on by another worker, and the request that does it: pure."""

from __future__ import annotations

from typing import Any

import msgspec

from dynctl.frontend.body import Fields, one_sequence
from dynctl.frontend.transcript import Transcript

COMPLETIONS = b"/v1/completions"
CHAT = b"/v1/chat/completions"

_ENCODE = msgspec.json.Encoder().encode
_TRUE, _NULL = msgspec.Raw(b"true"), msgspec.Raw(b"null")
_NOTHING = (b"null", b"false", b"[]", b"{}", b'""', b"0", b"0.0")
_EXCLUDE = (
    *("logprobs", "top_logprobs", "stop", "presence_penalty", "frequency_penalty", "structured_outputs", "guided_json"),
    *("guided_regex", "guided_choice", "guided_grammar", "echo", "suffix", "bad_words", "thinking_token_budget"),
)
"""What depends on the output from its beginning on, in other ways than its tokens being there."""
_SAMPLING = (
    *("model", "temperature", "top_p", "top_k", "min_p", "seed", "repetition_penalty", "logit_bias", "ignore_eos"),
    *("stop_token_ids", "skip_special_tokens", "spaces_between_special_tokens", "allowed_token_ids", "min_tokens"),
    *("priority", "user", "cache_salt", "vllm_xargs", "stream", "stream_options"),
)
"""What a chat's members mean for a completion, too."""
_DEFAULT_MAX_TOKENS = 16
"""Of the completions API (vLLM's CompletionRequest)."""


class _Part(msgspec.Struct):
    type: str = "text"


class _Message(msgspec.Struct):
    content: str | list[_Part | str] | None = None


_MESSAGES = msgspec.json.Decoder(list[_Message])


def transcript_for(target: bytes, fields: Fields) -> Transcript | None:
    """A transcript for a request whose stream can be carried on, else None.

    Not so: several sequences, and what needs the output's beginning: stop strings, log probabilities, penalties that
    count what was put out, structured output, tools, and prompts that are more than text.
    """
    if target not in (COMPLETIONS, CHAT) or fields.get("stream") != _TRUE or not one_sequence(fields):
        return None
    if any(_given(fields, name) for name in _EXCLUDE) or not _plain(fields):
        return None
    options = _value(fields, "stream_options")
    return Transcript(
        chat=target == CHAT,
        wants_ids=fields.get("return_token_ids") == _TRUE,
        wants_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def with_ids(fields: Fields) -> bytes:
    """The request's body, asking for token ids."""
    return _ENCODE({**fields, "return_token_ids": _TRUE})


def limit_of(target: bytes, fields: Fields) -> int | None:
    """Tokens that the request asked for at most; None: as many as the model's length allows."""
    names = ("max_completion_tokens", "max_tokens") if target == CHAT else ("max_tokens",)
    for name in names:
        value = _value(fields, name)
        if isinstance(value, int):
            return value
    return None if target == CHAT else _DEFAULT_MAX_TOKENS


def continuation(target: bytes, fields: Fields, transcript: Transcript, limit: int) -> Fields:
    """The completion that goes on where the transcript ends. `limit`: tokens of the whole answer, at most."""
    made = len(transcript.ids)
    members: dict[str, Any] = {name: fields[name] for name in _SAMPLING if name in fields}
    if target == COMPLETIONS:
        members = {name: value for name, value in fields.items() if name != "truncate_prompt_tokens"}
    members["prompt"] = msgspec.Raw(_ENCODE([*(transcript.prompt or ()), *transcript.ids]))
    members["max_tokens"] = msgspec.Raw(_ENCODE(max(1, limit - made)))
    least = _value(fields, "min_tokens")
    if isinstance(least, int):
        members["min_tokens"] = msgspec.Raw(_ENCODE(max(0, least - made)))
    return {**members, "return_token_ids": _TRUE}


def _plain(fields: Fields) -> bool:
    """No tools in use, no format of the answer, no prompt but text."""
    if _given(fields, "tools") and _value(fields, "tool_choice") != "none":
        return False
    shape = _value(fields, "response_format")
    if shape is not None and not (isinstance(shape, dict) and shape.get("type") == "text"):
        return False
    if "messages" not in fields:
        return True
    try:
        messages = _MESSAGES.decode(fields["messages"])
    except (msgspec.DecodeError, RecursionError):
        return False
    parts = [part for message in messages if isinstance(message.content, list) for part in message.content]
    return all(isinstance(part, str) or part.type == "text" for part in parts)


def _given(fields: Fields, name: str) -> bool:
    return bytes(fields.get(name, _NULL)) not in _NOTHING


def _value(fields: Fields, name: str) -> Any:
    raw = fields.get(name)
    return None if raw is None else msgspec.json.decode(raw)
