"""Watches a router that is not dynctl's own, and reports of it as the built-in frontend does of itself."""

from __future__ import annotations

from typing import Protocol

from dynctl.runtime.beat import next_beat
from dynctl.runtime.dynamo_watch import DynamoWatch
from dynctl.runtime.dynamo_watch import Run as DynamoRun
from dynctl.runtime.router_watch import RouterWatch
from dynctl.runtime.router_watch import Run as RouterRun

LOOK_S = 0.5


class Run(DynamoRun, RouterRun, Protocol):
    """What is needed of the supervisor."""


class Routed:
    """Looks twice a second."""

    def __init__(self, run: Run) -> None:
        watches = {"dynamo": DynamoWatch, "vllm-router": RouterWatch}
        kind = watches.get(run.plan.router)
        self._watch = kind(run) if kind else None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await next_beat(LOOK_S)
            if self._watch:
                await self._watch.round()
