"""How the proofs talk: directed requests through the run's own frontend, and the engines' metrics directly."""

from __future__ import annotations

import functools
import ssl
import time
from types import TracebackType
from typing import Any

import httpx
import msgspec

from dynctl.http.pinned import pinned
from dynctl.telemetry.scrape import EngineSample, sample

PAIR_HEADER = "X-Dynctl-Pair"
TOKEN_HEADER = "X-Dynctl-Token"  # noqa: S105 - the header's name
REQUEST_TIMEOUT_S = 120.0


class ProofError(Exception):
    """A proof's request failed; the message says which and how."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A greedy completion: prompt length, output token ids, and per token the alternatives' log-probabilities."""

    prompt_tokens: int
    token_ids: tuple[int, ...] = ()
    top_logprobs: tuple[dict[str, float], ...] = ()


class _Logprobs(msgspec.Struct, frozen=True):
    top_logprobs: list[dict[str, float]] | None = None


class _Choice(msgspec.Struct, frozen=True):
    token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int


class _Chunk(msgspec.Struct, frozen=True):
    """The part of a streamed chunk of /v1/completions that is read here."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


@functools.cache
def _tls(cert: str | None) -> ssl.SSLContext:
    """One for all clients: to make one takes a tenth of a second, in which a supervisor notices nothing."""
    return pinned(cert) or httpx.create_ssl_context(trust_env=False)


class ProofClient:
    """Sends directed requests. `metrics` maps process ids to the URL of their /metrics; `cert`: what an https frontend
    shows.

    `asked`: takes the ids of requests that a frontend which knows no token counts among its users'.
    """

    def __init__(
        self,
        frontend_url: str,
        token: str,
        model: str,
        metrics: dict[str, str],
        *,
        cert: str | None = None,
        asked: set[str] | None = None,
    ) -> None:
        self.asked = asked if asked is not None else set()
        self._url, self._token, self._model, self._metrics = frontend_url, token, model, metrics
        self._http = httpx.AsyncClient(trust_env=False, timeout=REQUEST_TIMEOUT_S, verify=_tls(cert))

    async def __aenter__(self) -> ProofClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def reach(self, *workers: str) -> str | None:
        """Returns once directed requests get to these, and says so where that was to be waited for."""
        return None

    async def complete(
        self, prompt: str, *, route: str, salt: str, max_tokens: int, logprobs: int | None = None
    ) -> Completion:
        """A streamed greedy completion over `route` ("prefill-0>decode-0", or "decode-0" alone)."""
        headers = {PAIR_HEADER: route, TOKEN_HEADER: self._token, "content-type": "application/json"}
        body = msgspec.json.encode(self._document(prompt, salt, max_tokens, logprobs))
        return await self._stream(route, f"{self._url}/v1/completions", body, headers)

    def _document(self, prompt: str, salt: str, max_tokens: int, logprobs: int | None) -> dict[str, object]:
        body: dict[str, object] = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "cache_salt": salt,
            "return_token_ids": True,
        }
        if logprobs is not None:
            body["logprobs"] = logprobs
        return body

    async def _stream(self, route: str, url: str, body: bytes, headers: dict[str, str]) -> Completion:
        try:
            async with self._http.stream("POST", url, content=body, headers=headers) as response:
                if response.status_code != 200:
                    text = (await response.aread()).decode(errors="replace")
                    raise ProofError(f"{route}: HTTP {response.status_code}: {text[:500]}")
                chunks = [line[5:].strip() async for line in response.aiter_lines() if line.startswith("data:")]
        except httpx.HTTPError as error:
            raise ProofError(f"{route}: {type(error).__name__}: {error}") from error
        return _completion(route, chunks)

    async def sample(self, process: str) -> EngineSample:
        """That engine's counters now."""
        try:
            response = (await self._http.get(self._metrics[process])).raise_for_status()
        except httpx.HTTPError as error:
            raise ProofError(f"{process}: its metrics can't be read: {error}") from error
        return sample(response.text, time.monotonic())


def _completion(route: str, chunks: list[str]) -> Completion:
    prompt_tokens = 0
    token_ids: list[int] = []
    logprobs: list[dict[str, float]] = []
    for chunk in chunks:
        if chunk == "[DONE]":
            return Completion(prompt_tokens=prompt_tokens, token_ids=tuple(token_ids), top_logprobs=tuple(logprobs))
        try:
            data = msgspec.json.decode(chunk, type=_Chunk)
        except msgspec.DecodeError as error:
            raise ProofError(f"{route}: a chunk is not what an engine sends ({error}): {chunk[:200]}") from error
        if data.error is not None:
            raise ProofError(f"{route}: {data.error.get('message') if isinstance(data.error, dict) else data.error}")
        prompt_tokens = data.usage.prompt_tokens if data.usage else prompt_tokens
        for choice in data.choices or ():
            token_ids += choice.token_ids or ()
            logprobs += (choice.logprobs.top_logprobs if choice.logprobs else None) or ()
    raise ProofError(f"{route}: the stream ended without [DONE]")
