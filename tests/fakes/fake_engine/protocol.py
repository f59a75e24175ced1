"""What a request may say, checked as vLLM checks it, and its errors in vLLM's shape."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec

from . import tokens
from .config import EngineConfig

_DEFAULT_MAX_TOKENS = 16  # of the completions API


class RequestError(Exception):
    """A refused request: status and the error object's fields."""

    def __init__(self, message: str, *, status: int = 400, kind: str = "BadRequestError", param: str | None = None):
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param

    def body(self) -> dict[str, Any]:
        """`{"error": {...}}`, as the client gets it."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.status}}


class Job(msgspec.Struct, kw_only=True):
    """One request, understood: its prompts as token ids, and what to make of them."""

    chat: bool
    request_id: str
    model: str
    prompts: list[list[int]]
    n: int
    max_tokens: int
    seed: int  # 0 is greedy
    salt: str
    stream: bool
    usage: bool
    continuous_usage: bool
    return_token_ids: bool
    logprobs: int | None
    echo: bool
    kv: dict[str, Any]


def parse_body(raw: bytes) -> dict[str, Any]:
    """The body as an object, or the 400 that vLLM gives."""
    if not raw:
        raise RequestError(
            "1 validation error:\n  {'type': 'missing', 'loc': 'body'}", kind="Bad Request", param="body"
        )
    try:
        body = json.loads(raw)
    except ValueError as error:
        text = (
            f"1 validation error:\n  {{'type': 'json_invalid', 'loc': 'body.1', 'msg': 'JSON decode error: {error}'}}"
        )
        raise RequestError(text, kind="Bad Request", param="body.1") from error
    if not isinstance(body, dict):
        raise RequestError("1 validation error:\n  {'loc': 'body'}", kind="Bad Request", param="body")
    return body


def understand(body: dict[str, Any], chat: bool, config: EngineConfig, request_id: str) -> Job:
    """Check the body and turn it into a Job, or raise the RequestError that vLLM would answer with."""
    prompts = _chat_prompt(body) if chat else _prompts(body)
    model = body.get("model") or config.served_names[0]
    if model not in config.served_names:
        known = ", ".join(config.served_names)
        text = f"The model `{model}` does not exist. Valid aliases: {known}."
        raise RequestError(text, status=404, kind="NotFoundError", param="model")
    options = body.get("stream_options") or {}
    if options and not body.get("stream"):
        _refuse("stream_options", "Stream options can only be defined when `stream=True`. (parameter=stream_options)")
    if body.get("cache_salt") == "":
        _refuse("cache_salt", "Parameter 'cache_salt' must be a non-empty string if provided. (parameter=cache_salt)")
    stranger = next((t for p in prompts for t in p if not 0 <= t < config.vocab_size), None)
    if stranger is not None:
        raise RequestError(f"Token id {stranger} is out of vocabulary")
    max_tokens = _max_tokens(body, chat, config, max(map(len, prompts)))
    logprobs = body.get("logprobs")
    if chat:
        logprobs = (body.get("top_logprobs") or 0) if logprobs else None
    return Job(
        chat=chat,
        request_id=request_id,
        model=model,
        prompts=prompts,
        n=body.get("n") or 1,
        max_tokens=max_tokens,
        seed=_seed(body),
        salt=body.get("cache_salt") or "",
        stream=bool(body.get("stream")),
        usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        return_token_ids=bool(body.get("return_token_ids")),
        logprobs=logprobs,
        echo=bool(body.get("echo")),
        kv=body.get("kv_transfer_params") or {},
    )


def _refuse(param: str, message: str) -> None:
    raise RequestError(message, param=param)


def _chat_prompt(body: dict[str, Any]) -> list[list[int]]:
    messages = body.get("messages")
    if not isinstance(messages, list):
        kind = "missing" if messages is None else "list_type"
        text = f"1 validation error:\n  {{'type': '{kind}', 'loc': 'body.messages'}}"
        raise RequestError(text, kind="Bad Request", param="body.messages")
    if not messages:
        raise RequestError("Cannot apply chat template to an empty conversation. Provide at least one message.")
    return [tokens.render_chat(messages)]


def _prompts(body: dict[str, Any]) -> list[list[int]]:
    prompt = body.get("prompt")
    if prompt is None or prompt == "":
        _refuse("prompt", "Either prompt or prompt_embeds must be provided and non-empty. (parameter=prompt)")
    if isinstance(prompt, str):
        return [tokens.encode(prompt)]
    if not isinstance(prompt, list):
        raise RequestError("1 validation error:\n  {'loc': 'body.prompt'}", kind="Bad Request", param="body.prompt")
    if not prompt:
        raise RequestError("You must pass at least one prompt")
    if isinstance(prompt[0], int):
        return [prompt]
    return [tokens.encode(p) if isinstance(p, str) else p for p in prompt]


def _max_tokens(body: dict[str, Any], chat: bool, config: EngineConfig, prompt_length: int) -> int:
    longest = config.max_model_len
    named = body.get("max_completion_tokens") if chat else None
    asked = body.get("max_tokens") if named is None else named
    if asked is not None and asked < 1:
        text = f"max_tokens must be at least 1, got {asked}. (parameter=max_tokens, value={asked})"
        _refuse("max_tokens", text)
    if prompt_length > longest:
        text = (
            f"This model's maximum context length is {longest} tokens. However, your prompt contains {prompt_length} "
            "input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the "
            f"input prompt. (parameter=input_tokens, value={prompt_length})"
        )
        _refuse("input_tokens", text)
    if asked is not None and asked > longest:
        text = f"max_tokens={asked} cannot be greater than max_model_len={longest}. Please request fewer output tokens."
        _refuse("max_tokens", f"{text} (parameter=max_tokens, value={asked})")
    room = longest - prompt_length
    limit: int = min(room, asked or (room if chat else _DEFAULT_MAX_TOKENS))
    if (body.get("min_tokens") or 0) > limit:
        raise RequestError(f"min_tokens must be less than or equal to max_tokens={limit}, got {body['min_tokens']}.")
    return limit


def _seed(body: dict[str, Any]) -> int:
    temperature = body.get("temperature")
    if temperature is not None and temperature < 0:
        text = f"temperature must be non-negative, got {float(temperature)}. (parameter=temperature)"
        _refuse("temperature", text)
    if temperature == 0:
        return 0
    seed = body.get("seed")
    return random.getrandbits(32) + 1 if seed is None else int(seed) + 1
