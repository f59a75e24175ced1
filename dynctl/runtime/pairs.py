"""The last gate of a run: who opens it, for all processes at first and for one that came back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol

from dynctl.errors import DynctlError
from dynctl.plan.values import Plan, pairs_to_prove
from dynctl.runtime.proving import Proving
from dynctl.runtime.serving import Serving
from dynctl.runtime.waits import first_of


class Prover(Protocol):
    """What bring-up asks: it opens every process's own gates, the prover those between them."""

    async def all(self) -> None:
        """Returns when every pair is proven. Raises what makes the run fail."""

    async def again(self, process: str) -> None:
        """Returns when a process that serves again is proven again. Raises what makes that start of it fail.

        TimeoutError when that takes longer than `ready.timeout`.
        """


class PairsProver:
    """Proves by requests through the frontend, which has to be on this node."""

    def __init__(self, plan: Plan, proving: Proving, serving: Serving) -> None:
        self._plan, self._proving, self._serving = plan, proving, serving

    async def all(self) -> None:
        """Every pair as soon as both its ends serve, then the tokens."""
        await self._serving.come("frontend")
        await self._proving.prove(pairs_to_prove(self._plan.transport.pairs), self._serving.come)
        if self._plan.router != "builtin" and not self._plan.transport.pairs:
            await self._proving.serve_alone([worker.id for worker in self._plan.workers()], self._serving.come)
        for process in self._plan.processes:
            await self._serving.come(process.id)
        if self._plan.router == "vllm-router":
            await self._proving.through_router()
        if self._plan.verify:
            await self._proving.verify()

    async def again(self, process: str) -> None:
        """With every partner that serves. One that dies meanwhile proves the pair itself, once it is back."""
        mine = self._proving.pairs_of(process)
        if self._plan.router != "builtin" and self._plan.process(process).role == "worker":
            async with asyncio.timeout(self._plan.ready.timeout_s):
                await self._proving.serve_alone([process], self._serving.come)
        if self._plan.router == "vllm-router" and process == "frontend":
            async with asyncio.timeout(self._plan.ready.timeout_s):
                await self._proving.through_router()
        served = [pair for pair in mine if pair.from_ in self._serving and pair.to in self._serving]
        async with asyncio.timeout(self._plan.ready.timeout_s), asyncio.TaskGroup() as group:
            for pair in pairs_to_prove(tuple(served)):
                partner = pair.to if pair.from_ == process else pair.from_
                proof = self._proving.prove([pair], self._serving.come, shared=True)
                group.create_task(self._unless_gone(proof, partner))

    async def _unless_gone(self, proof: Coroutine[None, None, None], partner: str) -> None:
        """The proof, unless the partner goes first: then nothing is to be proven, and a failure is not the other's."""
        try:
            await first_of(proof, self._serving.go(partner))
        except (DynctlError, ExceptionGroup):
            if partner in self._serving:
                raise
