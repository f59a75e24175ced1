"""What the OpenAI SDK asks of the frontend and of one engine alike: names, methods and arguments."""

from __future__ import annotations

from typing import Any, NamedTuple

T = dict[str, Any]

WORDS = "A lantern in the harbour tells of rivers and stones. " * 4
IDS = [[5, 9, 300, 41, 77, 801, 12, 650, 99, 1001] * 4, [900, 17, 23, 512] * 8]
SAYS = [{"role": "system", "content": "You count boats."}, {"role": "user", "content": WORDS}]
SCHEMA = {
    "type": "object",
    "properties": {"boat": {"enum": ["red", "blue"]}, "ready": {"type": "boolean"}},
    "required": ["boat", "ready"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "count_boats", "description": "Counts.", "parameters": SCHEMA}}
SEEDED = {"seed": 7, "temperature": 1.0, "top_p": 0.95}
GREEDY = {"temperature": 0}


class Case(NamedTuple):
    """`ask` goes to the SDK method of that `kind`; `extra`: members that the SDK has no argument for;
    `refused`: the engine answers with an error."""

    kind: str
    ask: T
    extra: T = {}  # noqa: RUF012 - a NamedTuple's default
    streamed: bool = True
    refused: bool = False


def _completion(streamed: bool = True, extra: T | None = None, refused: bool = False, **ask: Any) -> Case:
    return Case("completions", {"prompt": WORDS, "max_tokens": 12, **ask}, extra or {}, streamed, refused)


def _chat(streamed: bool = True, extra: T | None = None, refused: bool = False, **ask: Any) -> Case:
    return Case("chat", {"messages": SAYS, "max_tokens": 12, **ask}, extra or {}, streamed, refused)


CASES: dict[str, Case] = {
    "completion, greedy": _completion(**GREEDY),
    "completion, seeded": _completion(**SEEDED),
    "completion, n": _completion(n=3, **SEEDED),
    "completion, several prompts": _completion(prompt=[WORDS, "Seven boats", "An old pilot"], **SEEDED),
    "completion, token ids": _completion(prompt=IDS[0], **SEEDED),
    "completion, one prompt in a list": _completion(prompt=[WORDS], **SEEDED),
    "completion, lists of token ids": _completion(prompt=IDS, **GREEDY),
    "completion, logprobs": _completion(logprobs=3, **SEEDED),
    "completion, logprobs of ids": _completion(logprobs=1, extra={"return_tokens_as_token_ids": True}, **GREEDY),
    "completion, echo": _completion(echo=True, logprobs=1, **GREEDY),
    "completion, prompt logprobs": _completion(streamed=False, extra={"prompt_logprobs": 1}, **GREEDY),
    "completion, token ids told": _completion(extra={"return_token_ids": True}, **SEEDED),
    "completion, one token": _completion(**{**GREEDY, "max_tokens": 1}),
    "completion, default length": _completion(prompt="x", stop=["e", "a"], **{**SEEDED, "max_tokens": None}),
    "completion, at least": _completion(extra={"min_tokens": 12, "stop_token_ids": list(range(1000))}, **SEEDED),
    "completion, penalties": _completion(
        presence_penalty=1.0,
        frequency_penalty=0.5,
        extra={"repetition_penalty": 1.2, "top_k": 40, "min_p": 0.01},
        **SEEDED,
    ),
    "completion, bias": _completion(logit_bias={"300": 100}, **GREEDY),
    "completion, choice": _completion(extra={"structured_outputs": {"choice": ["red", "blue"]}}, **GREEDY),
    "completion, no such model": _completion(model="nobody", refused=True),
    "completion, too long": _completion(prompt="boat " * 9000, refused=True),
    "completion, too hot": _completion(temperature=-3, refused=True),
    "completion, suffix": _completion(suffix="the end", refused=True),
    "chat, greedy": _chat(**GREEDY),
    "chat, seeded": _chat(**SEEDED),
    "chat, n": _chat(n=2, **SEEDED),
    "chat, logprobs": _chat(logprobs=True, top_logprobs=2, **SEEDED),
    "chat, completion tokens": _chat(max_completion_tokens=5, **{**SEEDED, "max_tokens": None}),
    "chat, named tool": _chat(
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "count_boats"}},
        **{**SEEDED, "max_tokens": 60},
    ),
    "chat, cut tool": _chat(
        tools=[TOOL], tool_choice={"type": "function", "function": {"name": "count_boats"}}, **SEEDED
    ),
    "chat, required tool": _chat(tools=[TOOL], tool_choice="required", **{**SEEDED, "max_tokens": 60}),
    "chat, no tool": _chat(tools=[TOOL], tool_choice="none", **SEEDED),
    "chat, automatic tool": _chat(tools=[TOOL], tool_choice="auto", **SEEDED),
    "chat, json": _chat(
        response_format={"type": "json_schema", "json_schema": {"name": "boat", "schema": SCHEMA}},
        **{**SEEDED, "max_tokens": 60},
    ),
    "chat, parts": _chat(messages=[{"role": "user", "content": [{"type": "text", "text": WORDS}]}], **SEEDED),
    "chat, told how it goes on": _chat(
        messages=[*SAYS, {"role": "assistant", "content": "Seven"}],
        extra={"continue_final_message": True, "add_generation_prompt": False},
        **SEEDED,
    ),
    "chat, no messages": _chat(messages=[], refused=True),
    "chat, no such role": _chat(messages=[{"role": "nobody", "content": 3}], refused=True),
    "responses": Case("responses", {"input": WORDS, "max_output_tokens": 12, "temperature": 0}),
    "responses, instructed": Case(
        "responses", {"input": SAYS[1:], "instructions": "Count.", "max_output_tokens": 12, "temperature": 0}
    ),
}
