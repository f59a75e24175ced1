"""Requests are gone once an engine has answered them: nothing of them waits for the garbage collector, which would stop
all others meanwhile."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from frontend_harness import Router, on_uvloop, until
from stub_engine import Script, StubEngine, hang_up, prefill_reply, reply, stream, text_event

from dynctl.frontend.job import Job

REQUESTS = 12


@contextmanager
def no_collector() -> Iterator[list[object]]:
    """At its end the list holds what only the collector would have found."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    ("prefill", "decode", "status"),
    [
        (prefill_reply(), stream(*(text_event(f"t{n}") for n in range(9))), 200),
        (prefill_reply(), stream(text_event("t"), end=False), 200),
        (prefill_reply(), reply('{"choices":[]}'), 200),
        (reply("no", 400), hang_up(), 400),
    ],
    ids=["stream", "cut", "whole", "refused"],
)
@on_uvloop
async def test_nothing_of_a_request_is_left_to_the_collector(prefill: Script, decode: Script, status: int) -> None:
    async with StubEngine(prefill) as first, StubEngine(decode) as second, Router() as router:
        router.table(prefill_0=first.url, decode_0=second.url)
        await router.ask()
        with no_collector() as found:
            answers = await asyncio.gather(*(router.ask() for _ in range(REQUESTS)))
            await until(lambda: len(router.records) == REQUESTS + 1)
        assert {answer.status_code for answer in answers} == {status}
        assert [one for one in found if isinstance(one, Job)] == []
