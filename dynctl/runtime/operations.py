"""What operators ask of a ready run: restart, drain, scale. One operation at a time; each change is an event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from dynctl.counted import counted
from dynctl.engines.spec import SERVICES
from dynctl.errors import DynctlError, RunStateError, RuntimeFailure, UsageError
from dynctl.nodes.failed import Failed
from dynctl.nodes.messages import Errand, ErrandDone
from dynctl.plan.values import Plan
from dynctl.runtime.bringup import BringUp
from dynctl.runtime.errands import Errands, as_done, to_operation
from dynctl.runtime.managed import Managed
from dynctl.runtime.messages import Done, Drain, OnNodes, Operation, Restart, Scale, Undrain
from dynctl.runtime.observer import Observer
from dynctl.runtime.outcome import log
from dynctl.runtime.picture import Picture, Shown
from dynctl.runtime.proving import Proving
from dynctl.runtime.scaling import Scaling
from dynctl.runtime.serving import Serving
from dynctl.store.log import EventLog
from dynctl.store.run import RunRecord, RunStore

LOOK_S = 0.05
SETTLE_S = 0.5
"""So long after a worker was taken out the frontend has reported what it still has there."""
SAY_S = 5.0
STOP_PATIENCE_S = 60.0
COMING = frozenset({"starting", "loading", "unhealthy", "crashed", "backing off"})
"""States from which a process may get ready by itself."""
ROLE_ORDER = {"decode": 0, "worker": 0, "prefill": 1, "frontend": 2, "control": 3}

Answer = Callable[[Done], None]


class Run(Protocol):
    """What operations need of the supervisor."""

    plan: Plan
    processes: dict[str, Managed]
    errands: Errands
    bringup: BringUp
    observer: Observer
    picture: Picture
    events: EventLog
    store: RunStore
    record: RunRecord
    serving: Serving
    proving: Proving

    def refresh_state(self) -> None:
        """Recompute the run's state and tell the frontend."""

    @property
    def every(self) -> Mapping[str, Shown]:
        """The processes of all nodes."""


class Operations:
    """Carries them out by feeding the lives of processes with events."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._task: asyncio.Task[None] | None = None

    def begin(self, asked: Operation, answer: Answer) -> None:
        """Begins it, or answers why not. It goes on when who asked goes away."""
        try:
            self._refuse(asked)
        except DynctlError as error:
            answer(Done(failed=Failed.of(error)))
            return
        self._task = asyncio.create_task(self._carry_out(asked, answer))

    async def close(self) -> None:
        """The run ends: what is under way is given up."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _refuse(self, asked: Operation) -> None:
        run = self._run
        if not run.picture.was_ready:
            raise RunStateError(f"`{run.plan.name}` is not ready yet", fix="try again when it is")
        if self._task and not self._task.done():
            raise RunStateError(
                f"another operation on `{run.plan.name}` is under way", fix="`dynctl events -f` shows its progress"
            )
        if isinstance(asked, Scale):
            if run.plan.router == "vllm-router":
                raise RunStateError(
                    f"`{run.plan.name}` can't be scaled: vllm-router is told of its workers when it starts",
                    fix="change `workers` in the topology and start it anew, or use the built-in frontend",
                )
            if run.plan.nodes:
                raise RunStateError(f"`{run.plan.name}` runs on several nodes: workers come and go on one node only")
            return
        for process in asked.processes if isinstance(asked, Restart) else (asked.process,):
            if process not in run.every:
                known = ", ".join(run.every)
                raise UsageError(f"`{run.plan.name}` has no process `{process}`", why=f"there are: {known}")
        if not isinstance(asked, Restart):
            self._refuse_drain(asked.process)

    def _refuse_drain(self, process: str) -> None:
        plan = self._run.plan
        if plan.process(process).role in SERVICES:
            raise UsageError(f"the {process} can't be drained: it is no worker", fix="`dynctl restart` restarts it")
        if plan.router != "builtin":
            raise UsageError(
                f"{process} can't be drained: the router is {plan.router}'s own, and can't be told to pass it over",
                fix=f"`dynctl restart {process}` restarts it"
                + (": it takes itself out, and ends what it has" if plan.router == "dynamo" else ""),
            )

    async def _carry_out(self, asked: Operation, answer: Answer) -> None:
        try:
            said = await (
                self._do(asked)
                if isinstance(asked, Scale) or self._run.errands.here
                else self._run.errands.hand_over(asked)
            )
        except DynctlError as error:
            self._run.events.add("error", error.cause, why="; ".join(error.why) or None, who="operator")
            answer(Done(failed=Failed.of(error)))
        except asyncio.CancelledError:
            answer(Done(failed=Failed.of(RunStateError("given up: the run is ending"))))
            raise
        except Exception as error:
            log(error)
            answer(Done(failed=Failed.of(RuntimeFailure(f"the operation failed: {error!r}", where="its log"))))
        else:
            answer(Done(said=said))

    async def _do(self, asked: Operation) -> str:
        match asked:
            case Restart():
                return await self._restart(asked)
            case Drain() | Undrain():
                worker = self._worker(asked.process)
                asked = msgspec.structs.replace(asked, process=worker)
                if not self._run.errands.is_here(worker):
                    return await self._run.errands.step(asked, worker)
                return await (self._drain(asked) if isinstance(asked, Drain) else self._undrain(asked))
            case Scale():
                return await Scaling(self._run, self._idle).carry_out(asked)

    def _worker(self, process: str) -> str:
        """The process, or the leader of the worker on several nodes that it is a part of."""
        return self._run.plan.process(process).leader or process

    # what another node asks

    async def errand(self, errand: Errand) -> ErrandDone:
        """Does a step for the frontend's node; on that node the whole of what an operator asked for elsewhere."""
        asked = to_operation(errand)
        if not errand.step:
            done: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
            self.begin(asked, lambda said: None if done.done() else done.set_result(said))
            end = await done
            return ErrandDone(number=0, said=end.said, failed=end.failed)
        return await as_done(self._step(asked))

    async def _step(self, asked: OnNodes) -> str:
        for process in asked.processes if isinstance(asked, Restart) else (asked.process,):
            if process not in self._run.processes or not self._run.picture.was_ready:
                raise RunStateError(f"{process} can't be operated on here", where=f"node {self._run.plan.node}")
            self._say(process, "asked for by the frontend's node")
            if isinstance(asked, Restart):
                await self._restart_here(self._run.processes[process], asked.drain_s)
                return f"{process} is back"
        return await self._do(asked)

    # restart

    async def _restart(self, asked: Restart) -> str:
        """Workers one at a time, decode first; the frontend last."""
        every = self._run.every
        ids = list(dict.fromkeys(self._worker(process) for process in asked.processes or every))
        ids.sort(key=lambda process: ROLE_ORDER[every[process].spec.role])
        began = time.monotonic()
        for number, process in enumerate(ids, start=1):
            self._say(process, f"restart {number} of {len(ids)}")
            if every[process].state == "ready":
                await self._another_ready(every[process])
            if self._run.errands.is_here(process):
                await self._restart_here(self._run.processes[process], asked.drain_s)
            else:
                await self._run.errands.step(asked, process)
        return f"restarted {', '.join(ids)} in {time.monotonic() - began:.1f} s"

    async def _restart_here(self, process: Managed, drain_s: float) -> None:
        keeper, before = self._run.bringup.keepers[process.id], process.restarts
        keeper.feed("restart", why="asked for")
        if process.state == "draining":
            if process.spec.role not in SERVICES:  # which drains when it is told to end
                await self._idle(process, drain_s)
            keeper.feed("drained", why="asked for")
        await self._ready(process, before)

    async def _another_ready(self, process: Shown) -> None:
        """Where a role has several workers, one of them serves at any time."""
        workers = [p for p in self._run.every.values() if not p.spec.leader]
        others = [p for p in workers if p.spec.role == process.spec.role and p is not process]
        deadline = time.monotonic() + self._run.plan.ready.timeout_s
        while others and not any(other.state == "ready" for other in others):
            if time.monotonic() > deadline or not any(other.state in COMING for other in others):
                raise RuntimeFailure(
                    f"{process.id} is not restarted: no other {process.spec.role} worker is ready",
                    why=", ".join(f"{other.id} is {other.state}" for other in others),
                    fix="see to these first: `dynctl restart`, `dynctl drain --undo`",
                )
            await asyncio.sleep(LOOK_S)

    async def _ready(self, process: Managed, before: int) -> None:
        """Returns when it was started again and is ready. A start that fails counts by the process's restart rule."""
        rule = self._run.plan.ready
        deadline = time.monotonic() + rule.timeout_s + STOP_PATIENCE_S + process.spec.stop_grace_s
        while not (process.state == "ready" and process.restarts > before):
            late = time.monotonic() > deadline
            if late or process.state in {"failed", "stopped"}:
                raise RuntimeFailure(
                    f"{process.id} did not come back" + (" in time" if late else ""),
                    where=f"process {process.id}",
                    why=process.life.reason or f"it is {process.state}",
                    fix="what comes after it was left as it was",
                    tail=process.last_lines(),
                )
            await asyncio.sleep(LOOK_S)

    # drain

    async def _drain(self, asked: Drain) -> str:
        process = self._run.processes[asked.process]
        self._run.bringup.keepers[process.id].feed("drain", "taken out by an operator", why="asked for")
        if process.state != "draining":
            raise RunStateError(f"{process.id} is {process.state}: only a worker that is ready can be drained")
        left = await self._idle(process, asked.drain_s)
        if left:
            raise RuntimeFailure(
                f"{process.id} still has {counted(left, 'request')} in flight after {asked.drain_s:g} s",
                why="it stays out of the frontend, and goes on with these",
                fix=f"wait, or `dynctl drain --undo {process.id}` takes it in again",
            )
        return f"{process.id} is drained: nothing is in flight there"

    async def _undrain(self, asked: Undrain) -> str:
        process = self._run.processes[asked.process]
        keeper, before = self._run.bringup.keepers[process.id], process.restarts
        if process.state == "stopped":  # it ended while it was drained
            keeper.feed("start", why="asked for")
            await self._ready(process, before)
        elif process.state == "draining":
            keeper.feed("resume", "taken in again by an operator")
        else:
            raise RunStateError(f"{process.id} is {process.state}: it is not drained")
        return f"{process.id} takes requests again"

    async def _idle(self, process: Managed, timeout_s: float) -> int:
        """Returns when nothing is in flight there, or time is up: how many requests are left."""
        began = said_at = time.monotonic()
        known_at: float | None = None
        while process.pid:
            now, left = time.monotonic(), self._under_way(process.id)
            if known_at is None and left is not None:
                known_at = now
            if left == 0 and known_at is not None and now - known_at >= min(SETTLE_S, timeout_s):
                return 0
            if now - began >= timeout_s:
                return left or 0
            if now - said_at >= SAY_S:
                said_at = now
                self._say(process.id, f"draining: {left} in flight")
            await asyncio.sleep(LOOK_S)
        return 0

    def _under_way(self, process: str) -> int | None:
        """Requests that the frontend has there; None while its node has not said."""
        run = self._run
        return run.observer.busy(process) if run.errands.here else run.errands.under_way(process)

    def _say(self, process: str, message: str) -> None:
        self._run.events.add("operation", message, process=process, who="operator")
