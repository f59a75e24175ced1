"""The router as a process: its arguments and port, static workers, the end with signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from frontend_harness import bound, on_uvloop, until
from frontend_process import PROGRAM, frontend
from stub_engine import STREAM_HEAD, Asked, StubEngine, chunk, prefill_reply, stream, text_event

from dynctl.errors import UsageError
from dynctl.frontend.command import serve

DONE = b"data: [DONE]\n\n"


@on_uvloop
async def test_workers_given_by_url_are_probed() -> None:
    async with StubEngine(prefill_reply()) as p, StubEngine(stream(text_event("a"), DONE)) as d:
        async with frontend(prefill=[p.url], decode=[d.url + "/"]) as router:
            assert router.lines[0] == "workers: prefill-0 ready, decode-0 ready; ok"
            assert (await router.ask()).status_code == 200
            await p.stop()
            await until(lambda: router.said("prefill-0 down"))
            assert (await router.health())["status"] == "degraded"
            assert (await router.ask()).status_code == 200
            await d.stop()
            await until(lambda: router.said("decode-0 down"))
            assert (await router.health())["status"] == "down"
            assert (await router.ask()).status_code == 503
            await asyncio.gather(p.start(), d.start())
            await until(lambda: router.lines[-1] == "workers: prefill-0 ready, decode-0 ready; ok")
            assert (await router.ask()).status_code == 200
        assert router.lines[-2:] == ["frontend stopping: 0 requests under way", "frontend stopped"]


async def _slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM_HEAD + chunk(text_event("a")))
    await writer.drain()
    await asyncio.sleep(0.5)
    writer.write(chunk(DONE) + b"0\r\n\r\n")


async def _endless(asked: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(STREAM_HEAD + chunk(text_event("a")))
    await asked.left.wait()


@on_uvloop
async def test_sigterm_lets_requests_end() -> None:
    async with StubEngine(_slow) as engine, frontend(worker=[engine.url]) as router:
        asking = asyncio.create_task(router.ask())
        await until(lambda: bool(engine.asked))
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: router.said("stopping: 1 request under way"))
        with pytest.raises(httpx.ConnectError):
            await httpx.AsyncClient(trust_env=False).get(router.url + "/health")
        assert (await asking).content.endswith(DONE)


@on_uvloop
@pytest.mark.parametrize("hurry", [False, True])
async def test_what_does_not_end_is_cut(hurry: bool) -> None:
    drain_timeout_s = 60.0 if hurry else 0.3
    async with (
        StubEngine(_endless) as engine,
        frontend(worker=[engine.url], drain_timeout_s=drain_timeout_s) as router,
    ):
        asking = asyncio.create_task(router.ask())
        await until(lambda: bool(engine.asked))
        router.process.send_signal(signal.SIGTERM)
        await until(lambda: router.said("stopping: 1 request under way"))
        if hurry:
            router.process.send_signal(signal.SIGINT)
        with pytest.raises(httpx.HTTPError):
            await asking
        await asyncio.wait_for(engine.asked[0].left.wait(), 20)
        await until(lambda: router.said("frontend stopped: requests under way were cut"))


@on_uvloop
async def test_a_taken_port_is_a_users_error_that_names_the_holder() -> None:
    with bound() as taken:
        options = {"port": taken.getsockname()[1], "worker": ["http://127.0.0.1:1"]}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, msgspec.json.encode(options).decode(), stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 2
        assert said.decode().startswith(f"error: port {options['port']} on 127.0.0.1 is in use")
        assert str(os.getpid()) in said.decode()
        assert "Traceback" not in said.decode()


WRONG: dict[str, dict[str, Any]] = {
    "no worker": {},
    "prefill alone": {"prefill": ["http://h:1"]},
    "control and urls": {"control": Path("s"), "decode": ["http://h:1"]},
    "worker and decode": {"worker": ["http://h:1"], "decode": ["http://h:1"]},
    "not a url": {"decode": ["localhost:8000"]},
    "public without a key": {"host": "0.0.0.0", "decode": ["http://h:1"]},
    "no such host": {"host": "no-such-host.invalid", "decode": ["http://h:1"], "allow_public": True},
    "not an address of ours": {"host": "192.0.2.1", "decode": ["http://h:1"], "allow_public": True},
    "no key file": {"decode": ["http://h:1"], "api_keys_file": Path("/nonexistent")},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments(wrong: dict[str, Any]) -> None:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "prefill": [], "decode": [], "worker": []}
    with pytest.raises(UsageError) as caught:
        serve(**{**given, "control": None, "api_keys_file": None, **wrong})
    assert caught.value.exit_code == 2
