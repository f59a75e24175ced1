"""A frontend of several processes, and a client for each of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import psutil
from frontend_harness import BODY, until
from frontend_process import Process
from stub_engine import STREAM_HEAD, Asked, Script, chunk, reply, text_event

DONE = b"data: [DONE]\n\n"
SERVES = "serves, too"
ANSWER = reply('{"choices":[{"index":0,"text":"x"}]}')


def counted(text: str, name: str) -> float:
    """The sum of a metric's samples."""
    lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def siblings(router: Process) -> list[int]:
    return [child.pid for child in psutil.Process(router.process.pid).children()]


async def ready(router: Process, times: int = 1) -> None:
    """All processes serve, for the so-many-th time."""
    await until(lambda: sum(SERVES in line for line in router.lines) >= times)


def holder(router: Process, port: int) -> int | None:
    """Which process has the connection from that port of a client."""
    for pid in (router.process.pid, *siblings(router)):
        for one in psutil.Process(pid).net_connections("tcp"):
            if one.raddr and one.raddr.port == port and one.status == psutil.CONN_ESTABLISHED:
                return pid
    return None


@asynccontextmanager
async def clients(router: Process, tls: ssl.SSLContext | None = None) -> AsyncIterator[list[httpx.AsyncClient]]:
    """A client of one connection to each process, the first process's first."""
    trusted: ssl.SSLContext | bool = tls or True
    order = [router.process.pid, *siblings(router)]
    found: dict[int, httpx.AsyncClient] = {}
    async with AsyncExitStack() as stack:
        for _ in range(200):
            limits = httpx.Limits(max_connections=1)
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=router.url, timeout=30.0, trust_env=False, limits=limits, verify=trusted)
            )
            answer = await client.get("/live")
            port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
            pid = holder(router, port)
            if pid is not None:
                found.setdefault(pid, client)
            if len(found) == len(order):
                break
        assert set(found) == set(order)
        yield [found[pid] for pid in order]


async def ask(client: httpx.AsyncClient, key: str | None = None, body: bytes = BODY) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else None
    return await client.post("/v1/completions", content=body, headers=headers)


def held(release: asyncio.Event) -> Script:
    """A stream with one event at once, and its end when it is let go."""

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk(text_event("a")))
        await release.wait()
        writer.write(chunk(DONE) + b"0\r\n\r\n")

    return script
