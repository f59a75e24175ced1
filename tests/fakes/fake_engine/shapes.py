"""The JSON that vLLM 0.32 answers with: whole replies, and the chunks of a stream."""

from __future__ import annotations

import time
from typing import Any

from . import tokens
from .config import EngineConfig
from .protocol import Job

_FINGERPRINT = "vllm-0.32.0-fake"
_LOGPROB = -0.25


def model_list(config: EngineConfig) -> dict[str, Any]:
    """Answer of /v1/models."""
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": int(time.time()),
                "owned_by": "vllm",
                "root": config.model,
                "parent": None,
                "max_model_len": config.max_model_len,
                "permission": [],
            }
            for name in config.served_names
        ],
    }


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    """Token counts of a request."""
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "total_tokens": total, "completion_tokens": completion_tokens}


def whole(job: Job, outputs: list[tuple[list[int], list[int]]], kv: dict[str, Any] | None) -> dict[str, Any]:
    """A reply not streamed; `outputs` pairs each choice's prompt with its output, as token ids."""
    choices = [_choice(job, i, prompt, output) for i, (prompt, output) in enumerate(outputs)]
    counts = usage(sum(len(p) for p in job.prompts), sum(len(o) for _, o in outputs))
    reply = {
        **_head(job, "chat.completion" if job.chat else "text_completion"),
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": _FINGERPRINT,
        "usage": {**counts, "prompt_tokens_details": None, "completion_tokens_details": None},
    }
    if job.chat:
        ids = outputs[0][0] if job.return_token_ids else None
        reply |= {"prompt_logprobs": None, "prompt_token_ids": ids, "prompt_text": None}
    return reply | {"kv_transfer_params": kv, "ec_transfer_params": None, "metrics": None}


def role_chunk(job: Job, index: int, prompt: list[int]) -> dict[str, Any]:
    """The first chunk of a chat stream: a role and empty content."""
    choice = {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    ids = prompt if job.return_token_ids else None
    return {**_head(job, "chat.completion.chunk"), "choices": [choice], "prompt_token_ids": ids, "prompt_text": None}


def token_chunk(job: Job, index: int, prompt: list[int], output: list[int], last: bool) -> dict[str, Any]:
    """The chunk that brings the newest token of `output`."""
    token = output[-1]
    finish = {"finish_reason": "length" if last else None}
    ids = [token] if job.return_token_ids else None
    if job.chat:
        choice = {"index": index, "delta": {"content": tokens.decode([token])}, "logprobs": _logprobs(job, [token])}
        choice |= finish | ({"stop_reason": None} if last else {}) | {"token_ids": ids}
        chunk = {**_head(job, "chat.completion.chunk"), "choices": [choice]}
    else:
        text = tokens.decode((prompt if job.echo and len(output) == 1 else []) + [token])
        choice = {"index": index, "text": text, "logprobs": _logprobs(job, [token]), **finish, "stop_reason": None}
        choice["prompt_token_ids"] = prompt if job.return_token_ids and len(output) == 1 else None
        chunk = {**_head(job, "text_completion"), "choices": [choice | {"token_ids": ids}]}
    if job.continuous_usage:
        chunk["usage"] = usage(len(prompt), len(output))
    return chunk | ({"system_fingerprint": _FINGERPRINT} if last and not job.usage else {})


def usage_chunk(job: Job, completion_tokens: int) -> dict[str, Any]:
    """The last chunk, where usage was asked for: no choices."""
    head = _head(job, "chat.completion.chunk" if job.chat else "text_completion")
    counts = usage(sum(len(p) for p in job.prompts), completion_tokens)
    return {**head, "choices": [], "usage": counts, "system_fingerprint": _FINGERPRINT}


def _head(job: Job, kind: str) -> dict[str, Any]:
    return {"id": job.request_id, "object": kind, "created": int(time.time()), "model": job.model}


def _choice(job: Job, index: int, prompt: list[int], output: list[int]) -> dict[str, Any]:
    text = tokens.decode((prompt if job.echo else []) + output)
    ids = output if job.return_token_ids else None
    end = {"finish_reason": "length", "stop_reason": None, "token_ids": ids, "routed_experts": None}
    if job.chat:
        message = {"role": "assistant", "content": text, "refusal": None, "reasoning": None}
        return {"index": index, "message": message, "logprobs": _logprobs(job, output), **end}
    prompt_ids = prompt if job.return_token_ids else None
    details = {"prompt_logprobs": None, "prompt_token_ids": prompt_ids}
    return {"index": index, "text": text, "logprobs": _logprobs(job, output), **end, **details}


def _logprobs(job: Job, output: list[int]) -> dict[str, Any] | None:
    if job.logprobs is None:
        return None
    words = [tokens.decode([t]) for t in output]
    ranks = [_LOGPROB - i for i in range(max(1, job.logprobs))]
    if job.chat:

        def entry(word: str, value: float) -> dict[str, Any]:
            return {"token": word, "logprob": value, "bytes": list(word.encode())}

        top = [[entry(w if i == 0 else f"{w}{i}", v) for i, v in enumerate(ranks)] for w in words]
        return {"content": [entry(w, _LOGPROB) | {"top_logprobs": t} for w, t in zip(words, top, strict=True)]}
    return {
        "text_offset": list(range(len(words))),
        "token_logprobs": [_LOGPROB] * len(words),
        "tokens": words,
        "top_logprobs": [{(w if i == 0 else f"{w}{i}"): v for i, v in enumerate(ranks)} for w in words],
    }
