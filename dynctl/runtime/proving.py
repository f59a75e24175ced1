"""Opens the last gates: pairs proven as soon as both ends serve, verdicts held against floors, tokens verified."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from dynctl.errors import DynctlError, RuntimeFailure, TransportError
from dynctl.fabric.ucx_log import ProtoTable
from dynctl.fabric.verdict import explain, meets
from dynctl.nodes.seen import LogSeen
from dynctl.plan.values import Plan, PlannedPair, mover
from dynctl.proof.client import ProofClient, ProofError
from dynctl.proof.clients import client_of
from dynctl.proof.pair import PairProver
from dynctl.proof.router import prove_router
from dynctl.proof.verify import Verification, verify_pair
from dynctl.runtime.apart import Counts, apart
from dynctl.store.event import Event
from dynctl.store.log import EventLog
from dynctl.telemetry.status import PairStatus, VerifyStatus

ATTEMPTS = 3
PROVING = "proving its pairs"
"""The phase of a process meanwhile."""


class Provable(Protocol):
    """A process of this node or of another."""

    def enter(self, phase: str) -> None:
        """Shows what it is doing while it starts."""

    async def seen(self) -> LogSeen:
        """What its log told so far."""


class Proving:
    """Proves pairs and verifies tokens for one run; results are kept for the status.

    `counts` is told of each proof at both workers of its pair.
    """

    def __init__(
        self,
        plan: Plan,
        token: str,
        processes: Mapping[str, Provable],
        events: EventLog,
        counts: Counts | None = None,
    ) -> None:
        self._plan, self._token, self._processes, self._events = plan, token, processes, events
        self.asked: set[str] = set()
        self.pairs: dict[tuple[str, str], PairStatus] = {}
        self.verification = VerifyStatus(state="pending" if plan.verify else "off")
        self._counts = counts
        self._turns: dict[str, asyncio.Lock] = {}
        self._parts = {worker.id: tuple(part.id for part in plan.parts(worker.id)) for worker in plan.workers()}

    def follow(self, plan: Plan) -> None:
        """The plan is another now: pairs that it does not name are forgotten."""
        self._plan = plan
        named = {(pair.from_, pair.to) for pair in plan.transport.pairs}
        self.pairs = {pair: proven for pair, proven in self.pairs.items() if pair in named}

    def proven(self) -> tuple[PairStatus, ...]:
        """What was proven so far, in the plan's order."""
        named = ((pair.from_, pair.to) for pair in self._plan.transport.pairs)
        return tuple(self.pairs[ends] for ends in named if ends in self.pairs)

    def pairs_of(self, process: str) -> list[PlannedPair]:
        """The pairs that the plan has of that process."""
        return [pair for pair in self._plan.transport.pairs if process in (pair.from_, pair.to)]

    async def prove(
        self, pairs: Iterable[PlannedPair], await_end: Callable[[str], Awaitable[None]], *, shared: bool = False
    ) -> None:
        """Proves each pair once both its ends serve; pairs that share a worker wait for each other.

        `shared`: users' requests go over the same workers meanwhile.
        """
        async with client_of(self._plan, self._token, self.asked) as client, asyncio.TaskGroup() as group:
            for pair in pairs:
                group.create_task(self._prove(client, pair, await_end, shared))

    async def serve_alone(self, workers: Iterable[str], await_end: Callable[[str], Awaitable[None]]) -> None:
        """Asks each for a token through a router of another's, which may list workers before it knows the way."""
        async with client_of(self._plan, self._token, self.asked) as client:
            for worker in workers:
                await await_end(worker)
                await self._reach(client, worker)
                try:
                    async with apart(client, self._counts, [worker]):
                        await client.complete("Hi", route=worker, salt=worker, max_tokens=1)
                except ProofError as error:
                    raise RuntimeFailure(f"{worker} does not answer: {error}", where=f"process {worker}") from error
                self._events.add("gate", "answers through the frontend", process=worker)

    async def through_router(self) -> None:
        """A request by the router's own choice of workers must be served, and move KV like any other."""
        workers = [worker.id for worker in self._plan.workers()]
        async with client_of(self._plan, self._token, self.asked) as client, apart(client, self._counts, workers):
            try:
                moved = await prove_router(client, self._plan)
            except ProofError as error:
                raise RuntimeFailure(
                    f"no request goes through the router: {error}", where="process frontend"
                ) from error
        self._events.add(
            "gate",
            f"a completion through it moved {moved:,} KV bytes" if moved else "a completion through it",
            process="frontend",
        )

    async def _reach(self, client: ProofClient, *workers: str) -> None:
        if said := await client.reach(*workers):
            self._events.add("gate", said, process="frontend")

    async def verify(self) -> None:
        """Compares tokens over a covering set of pairs. RuntimeFailure when an exact model's tokens differ."""
        decodes = {pair.to: pair for pair in reversed(self._plan.transport.pairs)}
        results = []
        ends = {end for pair in decodes.values() for end in (pair.from_, pair.to)}
        async with client_of(self._plan, self._token, self.asked) as client, apart(client, self._counts, ends):
            for pair in decodes.values():
                moving = mover(pair, self._plan.transport.direction)
                try:
                    results.append(
                        await verify_pair(client, pair, self._plan.kv, mover=moving, weigh=not self._plan.exact)
                    )
                except ProofError as error:
                    raise await self._failed("verification failed", str(error), pair) from error
        self._judge(results)

    def recall(self, past: Iterable[Event]) -> None:
        """Takes in what an earlier supervisor of this run has proven, by its events."""
        planned = {(pair.from_, pair.to) for pair in self._plan.transport.pairs}
        for event in past:
            with contextlib.suppress(msgspec.ValidationError):
                if event.kind == "pair" and (proof := event.data.get("proof")):
                    proven = msgspec.convert(proof, PairStatus)
                    if (proven.from_, proven.to) in planned:
                        self.pairs[proven.from_, proven.to] = proven
                elif event.kind == "verify" and (outcome := event.data.get("verification")):
                    self.verification = msgspec.convert(outcome, VerifyStatus)

    async def _prove(
        self, client: ProofClient, pair: PlannedPair, await_end: Callable[[str], Awaitable[None]], shared: bool
    ) -> None:
        await await_end(pair.from_)
        await await_end(pair.to)
        # bytes are counted per process, so one proof at a time per worker; locks in one order can't deadlock
        async with self._turn(pair.from_), self._turn(pair.to):
            for end in (pair.from_, pair.to):
                self._processes[end].enter(PROVING)
            await self._reach(client, pair.from_, pair.to)
            prover = PairProver(
                client=client,
                simulated=self._plan.simulated,
                kv=self._plan.kv,
                direction=self._plan.transport.direction,
                tables=self._tables,
                shared=shared,
                parts=self._parts,
            )
            async with apart(client, self._counts, (pair.from_, pair.to)):
                proven = await self._attempt(prover, pair)
            await self._accept(pair, proven, prover.mover(pair))

    async def _attempt(self, prover: PairProver, pair: PlannedPair) -> PairStatus:
        """Proves the pair, again where nothing explains a failure: vLLM gives up a cold handshake after 5 s."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await prover.prove(pair)
            except ProofError as error:
                failure = await self._failed("a pair could not be proven", str(error), pair)
                known = [(await self._seen(end)).cause for end in (pair.from_, pair.to)]
                if any(known) or isinstance(failure, TransportError) or attempt == ATTEMPTS:
                    raise failure from error
                self._events.add("warning", f"{pair.from_} -> {pair.to}: not proven, trying again", why=str(error))
        raise AssertionError("unreachable")

    async def _accept(self, pair: PlannedPair, proven: PairStatus, mover: str) -> None:
        self.pairs[pair.from_, pair.to] = proven
        rate = f", {proven.gigabytes_per_s:.2f} GB/s" if proven.gigabytes_per_s else ""
        self._events.add(
            "pair",
            f"{pair.from_} -> {pair.to}: "
            + ("both served" if proven.bytes is None else f"{proven.verdict}, {proven.bytes:,} KV bytes{rate}"),
            process=mover,
            state=proven.verdict,
            why=proven.evidence[0].line.strip() if proven.evidence else None,
            data={
                "from": pair.from_,
                "to": pair.to,
                "bytes": proven.bytes or 0,
                "proof": msgspec.to_builtins(proven),
            },
        )
        lenient = self._plan.transport.required == "auto" and not any(p.gpus for p in self._plan.processes)
        if meets(proven.verdict, pair.floor) or (proven.verdict == "unknown" and lenient):
            return
        why, fix = explain(proven.verdict, (await self._seen(mover)).ucx, pair.floor)
        lines = [f"{item.source}: {item.line.strip()}" for item in proven.evidence]
        raise TransportError(
            f"{self._named(pair)} goes over {proven.verdict}; {pair.floor} is required",
            where=f"transport.require: {self._plan.transport.required}",
            why=[*why, *lines],
            fix=fix,
        )

    async def _failed(self, what: str, detail: str, pair: PlannedPair) -> DynctlError:
        moving = mover(pair, self._plan.transport.direction)
        seen = await self._seen(moving)
        if seen.ucx.errors:
            why, fix = explain("unknown", seen.ucx, pair.floor)
            if pair.floor != "tcp" and any(error.kind == "no-zero-copy" for error in seen.ucx.errors):
                lanes = [line.line for line in seen.ucx.lanes if line.endpoint != "self"]
                return TransportError(
                    f"{self._named(pair)}: UCX refused to emulate the transfer; {pair.floor} is required",
                    where=f"transport.require: {self._plan.transport.required}",
                    why=[*why, *(f"{moving}: {line}" for line in lanes[-1:])],
                    fix=fix,
                    tail=seen.tail,
                )
            return TransportError(f"{what}: {detail}", where=self._named(pair), why=why, fix=fix, tail=seen.tail)
        cause = seen.cause
        return RuntimeFailure(
            f"{what}: {detail}",
            where=self._named(pair),
            why=cause.cause if cause else None,
            fix=cause.fix if cause else None,
            tail=seen.tail,
        )

    def _named(self, pair: PlannedPair) -> str:
        """The pair, with its nodes where these are two."""
        ends = [(end, self._plan.process(end).node) for end in (pair.from_, pair.to)]
        return " -> ".join(f"{end} on node {node}" if pair.across else end for end, node in ends)

    def _judge(self, results: list[Verification]) -> None:
        divergences = [(result.pair, found) for result in results for found in result.divergences]
        prompts, tokens = sum(r.prompts for r in results), sum(r.tokens for r in results)
        detail = f"{divergences[0][0]}: {divergences[0][1].text()}" if divergences else None
        state = "passed" if not divergences else "failed" if self._plan.exact else "warned"
        self.verification = VerifyStatus(state=state, prompts=prompts, tokens=tokens, detail=detail)  # type: ignore[arg-type]
        same = "the same tokens through prefill -> decode and by decode alone"
        self._events.add(
            "verify",
            detail or f"{prompts} prompts, {tokens} tokens: {same}",
            state=state,
            data={"verification": msgspec.to_builtins(self.verification)},
        )
        if state == "failed":
            raise RuntimeFailure(
                "verification failed: prefill -> decode gives other tokens than decode alone",
                why=detail,
                fix="the KV cache that decode received is not the prompt's; keep this run's logs and report it",
            )

    async def _seen(self, worker: str) -> LogSeen:
        """What its log told; of a worker on several nodes that of the part which tells of a fault."""
        every = [await self._processes[part].seen() for part in (worker, *self._parts[worker])]
        return next((seen for seen in every if seen.ucx.errors or seen.cause), every[0])

    async def _tables(self, process: str) -> Sequence[ProtoTable]:
        return (await self._processes[process].seen()).ucx.tables

    def _turn(self, process: str) -> asyncio.Lock:
        return self._turns.setdefault(process, asyncio.Lock())
