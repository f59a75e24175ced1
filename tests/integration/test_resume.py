"""Streams whose decode worker is lost and that another one carries on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from frontend_harness import Router, on_uvloop
from stub_engine import Asked, Script, StubEngine, event, hang_up, prefill_reply, reply, stream

from tests.integration.run_harness import Home

DONE = "[DONE]"
DEAD = event({"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}})
ASK = b'{"model":"m","prompt":"hi","stream":true,"max_tokens":4}'


@pytest.fixture(scope="module")
def shared(fake_python: str, fake_model: Any) -> Iterator[Home]:
    home = Home(fake_python, fake_model)
    try:
        home.up({"frontend": {"resume": True}, "roles": {"decode": {"workers": 2, "restart": {"max": 1000}}}})
        yield home
    finally:
        home.close()


async def events(client: httpx.AsyncClient, chat: bool, number: int, begun: asyncio.Event, **more: Any) -> list[Any]:
    """All events of one stream; `begun` is set once it has brought a few."""
    words = f"the story of number {number} " * 8
    body = {"model": "fake", "max_tokens": 40, "temperature": 0, "stream": True, **more}
    body |= {"messages": [{"role": "user", "content": words}]} if chat else {"prompt": words}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    found: list[Any] = []
    async with client.stream("POST", path, json=body, headers={"x-request-id": f"r{number}"}) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                found.append(data if data == DONE else json.loads(data) | {"created": 0})
            if len(found) > 5:
                begun.set()
    return found


async def run(home: Home, victim: int | None, **more: Any) -> list[list[Any]]:
    """Twenty streams at once, completions and chats; the victim dies in the midst of them."""
    begun = [asyncio.Event() for _ in range(20)]
    async with httpx.AsyncClient(base_url=home.url, timeout=60, trust_env=False) as client:
        streams = [asyncio.create_task(events(client, n % 2 == 0, n, begun[n], **more)) for n in range(20)]
        if victim is not None:
            await asyncio.gather(*(one.wait() for one in begun))
            os.kill(victim, signal.SIGKILL)
        return await asyncio.gather(*streams)


@pytest.mark.parametrize(
    "more",
    [{}, {"return_token_ids": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}],
    ids=["plain", "ids and usage"],
)
def test_twenty_streams_outlive_their_decode_worker(shared: Home, more: dict[str, Any]) -> None:
    home = shared
    home.await_status(lambda s: s["state"] == "ready", "the run is ready")
    home.control(token_delay_ms=25)
    undisturbed = asyncio.run(run(home, None, **more))
    decode = next(p for p in home.status()["processes"] if p["id"] == "decode-0")
    disturbed = asyncio.run(run(home, decode["pid"], **more))
    assert disturbed == undisturbed
    assert all(found[-1] == DONE for found in disturbed)
    if not more:
        assert 'token_ids":[' not in json.dumps(disturbed).replace(" ", "")
    text = httpx.get(f"{home.url}/metrics", timeout=30, trust_env=False).text
    (count,) = [line.split()[1] for line in text.splitlines() if line.startswith("dynctl_resumed_streams_total ")]
    assert float(count) >= 10


# by scripted engines


def piece(text: str, token: int, finish: str | None = None, prompt: list[int] | None = None) -> bytes:
    """One chunk of a completion."""
    choice = {"index": 0, "text": text, "finish_reason": finish, "prompt_token_ids": prompt, "token_ids": [token]}
    return event({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})


BEGUN = (piece("a", 5, prompt=[1, 2]), piece("b", 6))
REST = (piece("c", 7), piece("d", 8, "length"), b"data: [DONE]\n\n")


@asynccontextmanager
async def trio(first: Script, second: Script) -> AsyncIterator[tuple[Router, StubEngine, StubEngine]]:
    """A router that resumes, over one prefill and two decodes."""
    async with (
        StubEngine(prefill_reply()) as p,
        StubEngine(first) as one,
        StubEngine(second) as two,
        Router(resume=True) as router,
    ):
        router.table(prefill_0=p.url, decode_0=one.url, decode_1=two.url)
        yield router, one, two


def text_of(answer: httpx.Response) -> str:
    """The text of a stream, which must have a proper end."""
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == DONE
    return "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])


@on_uvloop
@pytest.mark.parametrize(
    "end",
    [(), (DEAD,), (piece("", 0, "abort"),), (b'data: {"choi',)],
    ids=["closed", "error event", "aborted", "cut event"],
)
async def test_whatever_way_a_stream_breaks_off(end: tuple[bytes, ...]) -> None:
    async with trio(stream(*BEGUN, *end, end=False), stream(*REST)) as (router, one, two):
        answer = await router.ask(ASK)
        assert text_of(answer) == "abcd"
        assert one.asked[0].json()["return_token_ids"] is True
        assert two.asked[0].json()["prompt"] == [1, 2, 5, 6]
        assert two.asked[0].json()["max_tokens"] == 2
        assert two.asked[0].json()["kv_transfer_params"]
        record = await router.record()
        assert (record.status, record.error) == (200, None)
        assert (record.mode, record.decode, record.resumed) == ("disaggregated", "decode-0", ["decode-1"])
        assert record.ttft_ms is not None


@on_uvloop
@pytest.mark.parametrize("second", [hang_up(), reply("boom", 500), reply("{}")], ids=["gone", "500", "no stream"])
async def test_what_no_one_can_carry_on_ends_with_an_error(second: Script) -> None:
    async with trio(stream(*BEGUN, end=False), second) as (router, _, two):
        answer = await router.ask(ASK)
        lines = answer.text.split("\n\n")
        assert json.loads(lines[-2][6:])["error"]["code"] == "worker_lost"
        assert "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines[:-2]) == "ab"
        assert two.asked
        assert (await router.record()).error


@on_uvloop
@pytest.mark.parametrize(("models", "carried"), [('{"data":[{"id":"m","max_model_len":50}]}', True), ("{}", False)])
async def test_a_chat_without_a_limit_goes_on_to_the_models_length(models: str, carried: bool) -> None:
    async def second(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await (reply(models) if asked.target == "/v1/models" else stream(*REST))(asked, writer)

    choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    role = event({"id": "chatcmpl-1", "choices": [choice], "prompt_token_ids": [1, 2]})
    async with trio(stream(role, end=False), second) as (router, _, two):
        body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}'
        answer = await router.ask(body, path="/v1/chat/completions")
        assert (b'"content":"c"' in answer.content) is carried
        assert (b"worker_lost" in answer.content) is not carried
        if carried:
            assert two.asked[-1].target == "/v1/completions"
            assert two.asked[-1].json()["max_tokens"] == 48


@on_uvloop
async def test_a_stream_that_needs_its_beginning_breaks_off_as_ever() -> None:
    async with trio(stream(*BEGUN, end=False), stream(*REST)) as (router, one, two):
        body = ASK[:-1] + b',"stop":["x"]}'
        answer = await router.ask(body)
        assert b"worker_lost" in answer.content
        assert "return_token_ids" not in one.asked[0].json()
        assert two.asked == []


@on_uvloop
async def test_without_resume_nothing_is_asked_for_and_nothing_is_looked_at() -> None:
    async with StubEngine(stream(*BEGUN, end=False)) as one, StubEngine(stream(*REST)) as two, Router() as router:
        router.table(decode_0=one.url, decode_1=two.url)
        answer = await router.ask(ASK)
        assert answer.content.startswith(b"".join(BEGUN))
        assert one.asked[0].body == ASK
        assert two.asked == []


@on_uvloop
async def test_an_error_before_all_content_is_what_it_was() -> None:
    async def fails(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await stream(DEAD, b"data: [DONE]\n\n")(asked, writer)

    async with StubEngine(fails) as one, Router(resume=True) as router:
        router.table(decode_0=one.url)
        answer = await router.ask(ASK)
        assert answer.content == DEAD + b"data: [DONE]\n\n"
