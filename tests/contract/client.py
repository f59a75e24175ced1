"""What the contract suite says to an engine, and what it hears."""

from __future__ import annotations

import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from .pair import Pair, Worker

Body = dict[str, Any]
HAND_OVER: Body = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def salt() -> str:
    """A cache_salt that no request had before: its prompt hits no prefix."""
    return uuid.uuid4().hex


def prompt_ids(pair: Pair, length: int, seed: int) -> list[int]:
    """A prompt as token ids, away from the special ones."""
    source = random.Random(seed)
    return [source.randrange(50, min(pair.vocab_size, 280)) for _ in range(length)]


def completion(pair: Pair, prompt: list[int] | str, **more: Any) -> Body:
    """A greedy completion whose tokens can be compared."""
    base = {"model": pair.served_name, "prompt": prompt, "max_tokens": 8, "temperature": 0, "cache_salt": salt()}
    return {**base, "return_token_ids": True, **more}


def chat(pair: Pair, words: int = 60, **more: Any) -> Body:
    """A greedy chat whose prompt is longer than two blocks."""
    text = " ".join(f"w{i}{salt()[:4]}" for i in range(words))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    base = {"model": pair.served_name, "messages": messages, "max_tokens": 8, "temperature": 0, "cache_salt": salt()}
    return {**base, "return_token_ids": True, **more}


def post(pair: Pair, worker: Worker, path: str, body: Body | bytes, **headers: str) -> httpx.Response:
    """One request, not streamed."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"content-type": "application/json", **_request_id(body), **headers}
    return httpx.post(worker.url + path, content=content, headers=sent, timeout=pair.patience_s)


def ok(pair: Pair, worker: Worker, path: str, body: Body) -> Body:
    """The reply of a request that must succeed."""
    response = post(pair, worker, path, body)
    assert response.status_code == 200, response.text
    reply: Body = response.json()
    return reply


def prefill_leg(pair: Pair, path: str, body: Body) -> Body:
    """Leg one: the reply of the prefill worker, whose `kv_transfer_params` leg two carries verbatim."""
    leg = {k: v for k, v in body.items() if k not in ("stream", "stream_options", "min_tokens")}
    return ok(pair, pair.prefill, path, {**leg, "max_tokens": 1, "kv_transfer_params": HAND_OVER})


def hand_over(pair: Pair, path: str, body: Body) -> Body:
    """Leg one, then the body of leg two."""
    return {**body, "kv_transfer_params": prefill_leg(pair, path, body)["kv_transfer_params"]}


def stream(pair: Pair, worker: Worker, path: str, body: Body) -> list[Body]:
    """Every chunk of a streamed reply, which must end with [DONE]."""
    url, headers = worker.url + path, _request_id(body)
    with httpx.stream("POST", url, json={**body, "stream": True}, headers=headers, timeout=pair.patience_s) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        events = list(_events(response))
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def warm_up(pair: Pair, attempts: int = 3) -> None:
    """A first hand-over that succeeds: cold engines on a busy machine can miss vLLM's 5 s for the handshake."""
    for attempt in range(1, attempts + 1):
        body = {
            "model": pair.served_name,
            "prompt": list(range(40, 80)),
            "max_tokens": 2,
            "cache_salt": f"warm-{attempt}",
        }
        status = post(pair, pair.decode, "/v1/completions", hand_over(pair, "/v1/completions", body)).status_code
        if status == 200:
            return
    raise AssertionError(f"no hand-over succeeded in {attempts} attempts")


def _request_id(body: Body | bytes) -> dict[str, str]:
    """The same name on both legs: the push connector pairs them by it, and waits for ever where it finds no match."""
    name = body.get("cache_salt") if isinstance(body, dict) else None
    return {"X-Request-Id": name} if name else {}


def _events(response: httpx.Response) -> Iterator[str]:
    for line in response.iter_lines():
        if line:
            assert line.startswith("data: "), line
            yield line.removeprefix("data: ")


def output_ids(reply: Body) -> list[int]:
    """Token ids of a whole reply's first choice."""
    ids: list[int] = reply["choices"][0]["token_ids"]
    return ids


def streamed_ids(chunks: list[Body]) -> list[int]:
    """Token ids of a stream; a chunk may bring several."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return [token for choice in choices for token in choice.get("token_ids") or []]


def metric(worker: Worker, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry `labels`."""
    text = httpx.get(worker.url + "/metrics", timeout=30).text
    total, found = 0.0, False
    for line in text.splitlines():
        match = re.fullmatch(re.escape(name) + r"(?:\{(.*)\})? (\S+)", line)
        if match and all(f'{k}="{v}"' in (match[1] or "") for k, v in labels.items()):
            total, found = total + float(match[2]), True
    assert found, f"no metric {name} with {labels}"
    return total


def kv_bytes(pair: Pair) -> float:
    """Bytes of KV moved so far, as counted by the side that moves them: a pull's reader, a push's writer."""
    return metric(pair.prefill if pair.push else pair.decode, "vllm:nixl_bytes_transferred_sum")


def eventually(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for `condition`, or fail saying what did not happen."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"within {timeout_s:.0f} s, not: {what}"
        time.sleep(0.02)
