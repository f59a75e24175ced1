"""A frontend that a stranger's SIGTERM makes drain: it takes nothing new from that moment on, and is started again."""

from __future__ import annotations

import asyncio

from dynctl.runtime.keeper import Keeper

WHY = "a signal asked it to end"


def drains(keeper: Keeper, grace_s: float) -> None:
    """It said so. Requests under way have `grace_s` seconds; nobody is served until it is back."""
    process = keeper.process
    if process.state != "ready":
        return  # it was asked by the supervisor
    exited = process.exited
    keeper.feed("restart", f"drains: {WHY}", why=WHY)

    def cut() -> None:
        if process.exited is exited and process.state == "draining":
            keeper.feed("restart", "takes too long to drain")

    asyncio.get_running_loop().call_later(grace_s, cut)
