"""Who serves: one waits for a process to come or to go, however short the moment is."""

from __future__ import annotations

import asyncio

from dynctl.runtime.serving import Serving


async def test_it_is_a_set_of_the_processes_that_serve() -> None:
    serving = Serving(["a", "b", "c"])
    assert list(serving) == []
    serving.add("c")
    serving.add("a")
    assert list(serving) == ["a", "c"]
    assert (len(serving), "a" in serving, "b" in serving) == (2, True, False)
    serving.discard("a")
    assert list(serving) == ["c"]


async def test_coming_and_going_wake_who_waits() -> None:
    serving = Serving(["a"])
    await serving.go("a")  # it has never been here
    come = asyncio.create_task(serving.come("a"))
    await asyncio.sleep(0)
    assert not come.done()
    serving.add("a")
    await come
    go = asyncio.create_task(serving.go("a"))
    await asyncio.sleep(0)
    assert not go.done()
    serving.discard("a")
    serving.add("a")  # back before the other could look
    await go
