"""What the proofs send and how they read what comes back, against a transport without a network."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from dynctl.proof.client import Completion, ProofClient, ProofError

Handler = Callable[[httpx.Request], httpx.Response]
METRICS = 'vllm:nixl_bytes_transferred_sum{engine="0"} 12.0\n'


def chunk(**fields: Any) -> str:
    return f"data: {msgspec.json.encode(fields).decode()}\n\n"


def choice(*token_ids: int, top: list[dict[str, float]] | None = None) -> dict[str, Any]:
    return {"text": "x", "token_ids": list(token_ids), "logprobs": {"top_logprobs": top} if top else None}


GOOD = (
    chunk(choices=[choice(5, top=[{" a": -0.5}])])
    + ": a comment\n\n"
    + chunk(choices=[choice(6, 7, top=[{" b": -1.0}, {" c": -0.25}])], usage=None)
    + chunk(choices=[{"text": "", "token_ids": None}])
    + chunk(choices=[], usage={"prompt_tokens": 272, "completion_tokens": 3})
    + "data: [DONE]\n\n"
)


async def ask(handler: Handler, **options: Any) -> Completion:
    client = ProofClient("http://front:8000", "secret", "tiny", {"decode-0": "http://decode:1/metrics"})
    await client._http.aclose()
    client._http = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    async with client:
        return await client.complete("a prompt", route="prefill-0>decode-0", salt="s", max_tokens=3, **options)


def answers(text: str, status: int = 200) -> Handler:
    return lambda request: httpx.Response(status, text=text)


async def test_the_request_is_directed_greedy_and_fresh() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, text=GOOD)

    await ask(handler, logprobs=5)
    (request,) = seen
    body = msgspec.json.decode(request.content)
    assert (request.method, str(request.url)) == ("POST", "http://front:8000/v1/completions")
    assert request.headers["x-dynctl-pair"] == "prefill-0>decode-0"
    assert request.headers["x-dynctl-token"] == "secret"
    assert (body["model"], body["prompt"], body["max_tokens"], body["temperature"]) == ("tiny", "a prompt", 3, 0)
    assert (body["cache_salt"], body["return_token_ids"], body["ignore_eos"], body["logprobs"]) == ("s", True, True, 5)
    assert body["stream"]
    assert body["stream_options"] == {"include_usage": True}


async def test_the_answer_is_put_together() -> None:
    found = await ask(answers(GOOD))
    assert (found.prompt_tokens, found.token_ids) == (272, (5, 6, 7))
    assert found.top_logprobs == ({" a": -0.5}, {" b": -1.0}, {" c": -0.25})


@pytest.mark.parametrize(("text", "status", "words"), [
    ('{"error":{"message":"no prefill"}}', 503, "HTTP 503: .*no prefill"),
    (chunk(error={"message": "KV load failed"}), 200, "KV load failed"),
    (chunk(error="plain words"), 200, "plain words"),
    (chunk(choices=[choice(1)]), 200, r"ended without \[DONE\]"),
    ("", 200, r"ended without \[DONE\]"),
    ("<html>", 200, r"ended without \[DONE\]"),
    ("data: {not json\n\n", 200, "not what an engine sends"),
    ("data: [1]\n\ndata: [DONE]\n\n", 200, "not what an engine sends"),
    ('data: {"choices":[{"token_ids":["a"]}]}\n\ndata: [DONE]\n\n', 200, "not what an engine sends"),
])  # fmt: skip
async def test_what_is_no_answer_is_a_failed_proof(text: str, status: int, words: str) -> None:
    with pytest.raises(ProofError, match=f"prefill-0>decode-0: .*{words}"):
        await ask(answers(text, status))


async def test_a_connection_that_breaks_is_a_failed_proof() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset by peer")

    with pytest.raises(ProofError, match="ReadError: reset by peer"):
        await ask(handler)


async def sampled(handler: Handler) -> float:
    client = ProofClient("http://front:8000", "secret", "tiny", {"decode-0": "http://decode:1/metrics"})
    await client._http.aclose()
    client._http = httpx.AsyncClient(transport=httpx.MockTransport(handler))
    async with client:
        return (await client.sample("decode-0")).kv_bytes


async def test_counters_are_read_from_the_engine_itself() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://decode:1/metrics"
        return httpx.Response(200, text=METRICS)

    assert await sampled(handler) == 12.0


async def test_metrics_that_can_not_be_read_are_a_failed_proof() -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    for handler in (broken, answers("no", 500)):
        with pytest.raises(ProofError, match="decode-0: its metrics can't be read"):
            await sampled(handler)


async def test_what_certificates_are_checked_by_is_made_once_for_all_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    ProofClient("http://front:8000", "secret", "tiny", {})
    made: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: made.append(1))
    ProofClient("http://front:8000", "secret", "tiny", {})
    assert made == []
