"""A decode worker killed in the middle of real streams: another one carries them on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.deployment import deployed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

STREAMS = 20


async def stream(client: httpx.AsyncClient, number: int, begun: asyncio.Event) -> list[str]:
    """The events of one greedy stream, times left out; every other one is a chat."""
    words = f"Number {number} tells of rivers, stones and lanterns. " * 3
    body: dict[str, Any] = {"model": "tiny", "max_tokens": 48, "temperature": 0, "ignore_eos": True, "stream": True}
    body |= {"messages": [{"role": "user", "content": words}]} if number % 2 else {"prompt": words}
    body["stream_options"] = {"include_usage": True}
    path = "/v1/chat/completions" if number % 2 else "/v1/completions"
    texts, last = [], ""
    async with client.stream("POST", path, json=body) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                last = line or last
                continue
            chunk = httpx.Response(200, content=line[6:]).json()
            assert "error" not in chunk, chunk
            if chunk["choices"]:
                choice = chunk["choices"][0]
                assert not choice.get("token_ids")
                texts.append(choice["delta"].get("content") or "" if number % 2 else choice["text"])
            if chunk.get("usage"):
                texts.append(str(chunk["usage"]["completion_tokens"]))
            if len(texts) > 4:
                begun.set()
    assert last == "data: [DONE]"
    return ["".join(texts[:-1]), texts[-1]]


async def all_streams(url: str, victim: int | None) -> list[list[str]]:
    """Twenty at once; the victim dies once each has begun."""
    begun = [asyncio.Event() for _ in range(STREAMS)]
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False) as client:
        streams = [asyncio.create_task(stream(client, n, begun[n])) for n in range(STREAMS)]
        if victim is not None:
            await asyncio.gather(*(one.wait() for one in begun))
            os.kill(victim, signal.SIGKILL)
        return await asyncio.gather(*streams)


def test_twenty_streams_outlive_their_decode_worker(directory: Path, engine_python: str) -> None:
    """All complete, and every token is that of the undisturbed run."""
    sets = ("frontend.resume=true", "roles.decode.workers=2")
    with deployed("cpu-1p1d", directory, engine_python, *sets) as run:
        undisturbed = asyncio.run(all_streams(run.url, None))
        decode = next(p["pid"] for p in run.status()["processes"] if p["id"] == "decode-0")
        assert asyncio.run(all_streams(run.url, decode)) == undisturbed
        assert [found[1] for found in undisturbed] == ["48"] * STREAMS
        metrics = httpx.get(f"{run.url}/metrics", timeout=30, trust_env=False).text
        (count,) = [line for line in metrics.splitlines() if line.startswith("dynctl_resumed_streams_total ")]
        assert float(count.split()[1]) >= 1
