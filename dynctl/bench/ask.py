"""What has to be asked of a target before it is measured: its model, its tokenizer, its engines' counters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import httpx

from dynctl.bench.prompts import Vocabulary, counted
from dynctl.errors import RuntimeFailure, UsageError
from dynctl.http.pinned import trust
from dynctl.telemetry.scrape import EngineSample, sample

TIMEOUT_S = 30.0


def model_of(url: str, headers: Mapping[str, str], cert: str | None = None) -> str:
    """The model that the target serves. RuntimeFailure where it does not answer; UsageError where it has several."""
    try:
        with _client(headers, cert) as http:
            answer = http.get(f"{url}/v1/models")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RuntimeFailure(
            "the target can't be reached",
            where=f"{url}/v1/models",
            why=str(error) or type(error).__name__,
            fix="look whether it runs; `dynctl up` starts a deployment",
        ) from error
    try:
        names = [str(item["id"]) for item in answer.json()["data"]] if answer.status_code == 200 else []
    except (ValueError, KeyError, TypeError):
        names = []
    if not names:
        raise RuntimeFailure(
            f"the target does not say which model it serves: HTTP {answer.status_code}",
            where=f"{url}/v1/models",
            fix="name it with --model; keys go into --api-key-file",
        )
    if len(names) > 1:
        raise UsageError("the target serves several models", why=", ".join(names[:8]), fix="name one with --model")
    return names[0]


def _client(headers: Mapping[str, str], cert: str | None) -> httpx.Client:
    given = httpx.Headers(dict(headers), encoding="utf-8")
    return httpx.Client(headers=given, timeout=TIMEOUT_S, trust_env=False, verify=trust(cert))


def vocabulary(
    url: str, headers: Mapping[str, str], model: str, *, chat: bool, cert: str | None = None
) -> Vocabulary | None:
    """How the target's own tokenizer counts our words: as its `/tokenize` says, or the `usage` of one-token answers.

    None where it tells neither.
    """
    with _client(headers, cert) as http:

        def by_tokenize(text: str) -> int | None:
            return _number(http, f"{url}/tokenize", _asked(model, text, chat=chat), "count")

        def by_usage(text: str) -> int | None:
            path = "/v1/chat/completions" if chat else "/v1/completions"
            body = {**_asked(model, text, chat=chat), "max_tokens": 1}
            return _number(http, url + path, body, "usage", "prompt_tokens")

        for count in (by_tokenize, by_usage):
            if found := counted(count):
                return found
    return None


def _asked(model: str, text: str, *, chat: bool) -> dict[str, object]:
    return {"model": model, **({"messages": [{"role": "user", "content": text}]} if chat else {"prompt": text})}


def _number(http: httpx.Client, url: str, body: Mapping[str, object], *path: str) -> int | None:
    """The number that is found there in the answer; None for an answer without one."""
    try:
        answer = http.post(url, json=body)
        found: Any = answer.json() if answer.status_code == 200 else {}
        for key in path:
            found = found[key]
        return int(found)
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


def engine_sample(url: str) -> EngineSample | None:
    """An engine's counters now; None where it does not answer."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return None
    return sample(answer.text, time.monotonic()) if answer.status_code == 200 else None
