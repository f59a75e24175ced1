"""Waiting for the first of several things."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


async def first_of(*waits: Coroutine[None, None, object]) -> int:
    """Index of the first to end; the others are cancelled. An error of the first is raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return min(tasks.index(task) for task in done)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
