"""A router as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from frontend_harness import BODY, until

PROGRAM = """
import json, sys
from pathlib import Path
from dynctl.frontend.command import serve
from dynctl.frontend.retry import RetryLimits
from dynctl.frontend.shaping import read_shaping
from dynctl.frontend.tls import read_tls
from dynctl.errors import DynctlError
a = json.loads(sys.argv[1])
paths = {k: Path(a[k]) if a.get(k) else None for k in ("control", "api_keys_file", "uds", "access_log")}
try:
    sys.exit(serve(a.get("host", "127.0.0.1"), a["port"], a.get("prefill", []),
                   a.get("decode", []), a.get("worker", []),
                   paths["control"], paths["api_keys_file"], a.get("drain_timeout_s", 20.0),
                   tls=read_tls(*map(Path, a["tls"])) if a.get("tls") else None,
                   uds=paths["uds"], allow_public=a.get("allow_public", False), access_log=paths["access_log"],
                   processes=a.get("processes", 1), routing=a.get("routing", "round-robin"),
                   retries=RetryLimits(burst=a.get("retry_burst", 64.0)), resume=a.get("resume", False),
                   shaping=read_shaping(a.get("max_running"), a.get("max_waiting", 256), a.get("longest_wait", 30.0),
                                        a.get("decode_alone"))))
except DynctlError as error:
    print("\\n".join(error.lines()), file=sys.stderr)
    sys.exit(error.exit_code)
"""


class Process:
    """A router process: its lines, and a client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self.http = httpx.AsyncClient(timeout=30.0, trust_env=False)

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.lines.append(line.decode().rstrip())
            if found := re.match(r"frontend listening on (https?(?:\+unix)?://\S+)", self.lines[-1]):
                self.url = found[1]

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    async def health(self) -> dict[str, Any]:
        document: dict[str, Any] = (await self.http.get(self.url + "/health")).json()
        return document

    async def ask(self, headers: dict[str, str] | None = None) -> httpx.Response:
        return await self.http.post(self.url + "/v1/completions", content=BODY, headers=headers)


@asynccontextmanager
async def frontend(env: dict[str, str] | None = None, **options: Any) -> AsyncIterator[Process]:
    """Start a router on a free port and wait until it listens; it must end well with SIGTERM."""
    options.setdefault("port", 0)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        msgspec.json.encode(options).decode(),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    process = Process(child)
    reading = asyncio.create_task(process.read())
    try:
        await until(lambda: bool(process.url) or reading.done(), 60)
        assert process.url, "the router ended before it listened"
        yield process
        if child.returncode is None and not process.said("frontend stopping"):
            child.terminate()
        assert await asyncio.wait_for(child.wait(), 30) == 0
        await reading
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        reading.cancel()
        await process.http.aclose()
