"""TLS, SIGHUP, streams that are carried on, and prompts for decode alone, with several processes of a frontend."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from pathlib import Path
from typing import Any

import httpx
from certificates import certificate
from frontend_harness import on_uvloop, until
from frontend_process import Process, frontend
from several_harness import ANSWER, DONE, ask, clients, counted, ready, siblings
from stub_engine import Asked, StubEngine, event, prefill_reply, stream, text_event

ASK = b'{"model":"m","prompt":"hi","stream":true,"max_tokens":4}'


def trusting(cert: Path) -> ssl.SSLContext:
    """Nothing but that certificate."""
    return ssl.create_default_context(cafile=str(cert))


async def statuses(router: Process, tls: ssl.SSLContext, *keys: str) -> list[list[int]]:
    """What each process answers on a new connection, with each of the keys."""
    async with clients(router, tls) as each:
        return [[(await ask(client, key)).status_code for key in keys] for client in each]


@on_uvloop
async def test_each_process_speaks_tls_also_for_one_that_is_away(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    async with (
        StubEngine(ANSWER) as engine,
        frontend(worker=[engine.url], processes=2, tls=[str(cert), str(key)]) as router,
    ):
        assert router.url.startswith("https://")
        await ready(router)
        assert await statuses(router, trusting(cert), "any") == [[200], [200]]
        (victim,) = siblings(router)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: router.said("killed by SIGKILL"))
        for _ in range(8):  # each connection goes to either socket by chance
            async with httpx.AsyncClient(
                base_url=router.url, verify=trusting(cert), timeout=30.0, trust_env=False
            ) as client:
                assert (await ask(client)).status_code == 200
        await ready(router, 2)
        assert await statuses(router, trusting(cert), "any") == [[200], [200]]


@on_uvloop
async def test_sighup_to_the_first_is_followed_by_all(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    old = trusting(cert)
    keys = tmp_path / "keys"
    keys.write_text("old-key\n")
    options: dict[str, Any] = {"api_keys_file": str(keys), "tls": [str(cert), str(key)], "processes": 2}
    async with StubEngine(ANSWER) as engine, frontend(worker=[engine.url], **options) as router:
        await ready(router)
        assert await statuses(router, old, "old-key", "new-key") == [[200, 401]] * 2
        certificate(tmp_path, "two")
        keys.write_text("new-key\n")
        router.process.send_signal(signal.SIGHUP)
        await until(lambda: sum("read anew" in line for line in router.lines) == 2)
        now = trusting(cert)
        assert await statuses(router, now, "old-key", "new-key") == [[401, 200]] * 2
        (victim,) = siblings(router)
        os.kill(victim, signal.SIGKILL)  # one that is started again has the new ones, too
        await ready(router, 2)
        assert await statuses(router, now, "old-key", "new-key") == [[401, 200]] * 2
        cert.write_text("nonsense")
        router.process.send_signal(signal.SIGHUP)
        await until(lambda: sum("goes on with what it has" in line for line in router.lines) == 2)
        assert await statuses(router, now, "old-key", "new-key") == [[401, 200]] * 2


def piece(text: str, token: int, finish: str | None = None, prompt: list[int] | None = None) -> bytes:
    """One chunk of a completion, with its token ids."""
    choice = {"index": 0, "text": text, "finish_reason": finish, "prompt_token_ids": prompt, "token_ids": [token]}
    return event({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]})


async def breaks_off(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Half of a stream, or the other half where that is asked for."""
    if asked.json()["prompt"] == [1, 2, 5, 6]:
        await stream(piece("c", 7), piece("d", 8, "length"), DONE)(asked, writer)
    else:
        await stream(piece("a", 5, prompt=[1, 2]), piece("b", 6), end=False)(asked, writer)


@on_uvloop
async def test_each_process_carries_streams_on() -> None:
    async with (
        StubEngine(breaks_off) as one,
        StubEngine(breaks_off) as two,
        frontend(decode=[one.url, two.url], processes=2, resume=True) as router,
    ):
        await ready(router)
        async with clients(router) as each:
            for client in each:
                answer = await ask(client, body=ASK)
                lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
                assert lines[-1] == "[DONE]"
                assert "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1]) == "abcd"
            for client in each:
                assert counted((await client.get("/metrics")).text, "dynctl_resumed_streams_total") == 2
                told = (await client.get("/dynctl/requests")).json()["requests"]
                assert all(len(record["resumed"]) == 1 for record in told)
        assert len(one.asked) == len(two.asked) == 2


@on_uvloop
async def test_what_one_process_learns_of_short_prompts_another_goes_by() -> None:
    async with (
        StubEngine(prefill_reply(delay_s=0.05)) as prefill,
        StubEngine(stream(text_event("a"), DONE)) as decode,
        frontend(prefill=[prefill.url], decode=[decode.url], processes=2, decode_alone="learn") as router,
    ):
        await ready(router)
        async with clients(router) as (here, there):
            for _ in range(20):  # both ways in turn, until enough is known of each
                assert (await ask(there)).status_code == 200
            asked = len(prefill.asked)
            assert 8 <= asked <= 12
            for client in (here, there):
                for _ in range(5):
                    assert (await ask(client)).status_code == 200
            assert len(prefill.asked) == asked
            for client in (here, there):
                assert counted((await client.get("/metrics")).text, "dynctl_decode_alone_tokens") > 0
