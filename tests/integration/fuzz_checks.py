"""The fuzzer's checks: of an answer's bytes, and of the router itself after a round of requests."""

from __future__ import annotations

import asyncio
import time

import httptools
import psutil
from frontend_process import Process
from fuzz_grammar import Shot

SETTLED_S = 30.0
MOST_DESCRIPTORS = 120


class Answer:
    """Statuses of an answer's bytes; httptools.HttpParserError where they are not HTTP."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.statuses: list[int] = []
        self.ended = 0
        self.body = b""

    def on_headers_complete(self) -> None:
        self.statuses.append(self.parser.get_status_code())

    def on_body(self, data: bytes) -> None:
        self.body = (self.body + data)[-4096:]

    def on_message_complete(self) -> None:
        self.ended += 1

    @property
    def first(self) -> int | None:
        """The first status that is not on the way to another."""
        return next((status for status in self.statuses if status != 100), None)

    def faults(self, shot: Shot) -> list[str]:
        """What is wrong with it as an answer to that request."""
        if self.first is None:
            return [] if shot.closed else ["no answer"]
        found = []
        if self.first not in shot.statuses:
            found.append(f"status {self.first}: {self.body[:200]!r}")
        if b"internal error" in self.body:
            found.append(f"internal error: {self.body[:200]!r}")
        return found


async def settled(process: Process, router: psutil.Process) -> list[str]:
    """What is wrong: it must be alive, have nothing under way, keep no descriptor, say nothing that is not its log."""
    found = []
    end = time.monotonic() + SETTLED_S
    while True:
        text = (await process.http.get(process.url + "/metrics")).text
        if "dynctl_requests_in_flight 0.0" in text and router.num_fds() < MOST_DESCRIPTORS:
            break
        if time.monotonic() > end:
            found.append(f"not idle: {router.num_fds()} descriptors, or requests under way")
            break
        await asyncio.sleep(0.05)
    ready = "prefill-0 ready, decode-0 ready"
    strange = [line for line in process.lines if not line.startswith(("workers: ", "frontend listening"))]
    if strange:
        found.append(f"it said: {strange[:5]}, not only {ready}")
    return found
