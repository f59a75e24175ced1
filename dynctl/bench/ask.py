"""What has to be asked of a target before it is measured: its model, its tokenizer, its engines' counters."""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx

from dynctl.bench.prompts import FILLER, WORDS, Vocabulary
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
    """How the target's own tokenizer counts our words; None where it has no `/tokenize`.

    Every word is counted after a space and after another word, whose own count is taken off.
    """
    with _client(headers, cert) as http:

        def count(text: str) -> int | None:
            body: dict[str, object] = {"model": model}
            if chat:
                body["messages"] = [{"role": "user", "content": text}]
            else:
                body["prompt"] = text
            try:
                answer = http.post(f"{url}/tokenize", json=body)
                return int(answer.json()["count"]) if answer.status_code == 200 else None
            except (httpx.HTTPError, ValueError, KeyError, TypeError):
                return None

        base = count(" the")
        twice = count(" the the")
        if base is None or twice is None:
            return None
        overhead = base - (twice - base)
        tokens = {}
        for word in WORDS:
            found = count(f" the {word}")
            if found is not None and found > base:
                tokens[word] = found - base
        candidates = (*FILLER, *(f" {word}" for word in tokens))
        filler = next((piece for piece in candidates if (count(f" the{piece}") or 0) - base == 1), None)
    if filler is None or not tokens:
        return None
    return Vocabulary(tokens=tokens, filler=filler, overhead=overhead)


def engine_sample(url: str) -> EngineSample | None:
    """An engine's counters now; None where it does not answer."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return None
    return sample(answer.text, time.monotonic()) if answer.status_code == 200 else None
