"""Keeps one process of a ready run: feeds its life with events, and carries out what its life asks for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import Protocol

from dynctl.runtime import ownership
from dynctl.runtime.health import CannotTell, HealthCheck
from dynctl.runtime.lifecycle import Action, LifeEvent
from dynctl.runtime.managed import Managed
from dynctl.runtime.outcome import flat
from dynctl.runtime.vital import VitalChildren
from dynctl.store.log import EventLog

LAST_WAIT_S = 5.0
CLEAR_AGAIN_S = 1.0


class Gates(Protocol):
    """What keeping a process needs of bring-up."""

    async def open_again(self, process: Managed, *, execute: bool) -> None:
        """Starts it, if `execute`, and returns once its own gates are open. DynctlError or TimeoutError."""

    async def prove_again(self, process: Managed) -> None:
        """Proves its pairs with every partner that serves. DynctlError, TimeoutError or a group of them."""

    def changed(self, process: Managed) -> None:
        """Its state is another: the frontend and whoever watches must know at once."""


class Keeper:
    """`feed` is the one way in: process exits, timers, health checks and operators' wishes are all events."""

    def __init__(self, process: Managed, gates: Gates, events: EventLog, health: HealthCheck) -> None:
        self.process, self._gates, self._events, self._health = process, gates, events, health
        self._vital = VitalChildren(lambda child: self.feed("broken", why=f"{child} ended"))
        self._bringing: asyncio.Task[None] | None = None
        self._clearing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._execute = False

    async def run(self) -> None:
        """Watches the process, which is ready, until cancelled."""
        self.process.on_exit = self._exited
        try:
            if self.process.exited.is_set():
                self._exited()
            await self._vital.watch(self.process)
            self._health.proven()
            while True:
                await self._health.sleep(thorough=self.process.state != "ready")
                await self.look()
        finally:
            self.process.on_exit = lambda: None
            self._vital.close()
            if self._timer:
                self._timer.cancel()
            for task in (self._bringing, self._clearing):
                if task:
                    task.cancel()

    def feed(self, event: LifeEvent, message: str | None = None, why: str | None = None) -> None:
        """Applies an event and carries out, or begins, all that follows from it."""
        before = self.process.state
        actions = self.process.move(event, message, why)
        after = self.process.state
        if after not in {"starting", "loading"} and self._bringing is not asyncio.current_task():
            self._cancel_bringing()
        if after in {"crashed", "stopping"}:
            self._vital.close()
        if after != before:
            self._gates.changed(self.process)
        for action in actions:
            self._carry_out(action)

    async def look(self) -> None:
        """One health check. What it finds counts only if the process was in that state all the while."""
        state, exited = self.process.state, self.process.exited
        if state not in {"ready", "unhealthy"}:
            return
        try:
            problem = await self._health.look(thorough=state == "unhealthy")
        except CannotTell:
            return
        if self.process.state != state or self.process.exited is not exited:
            return
        if problem:
            self.feed("sick", problem, why=problem)
        else:
            self.feed("well")

    def _carry_out(self, action: Action) -> None:
        match action.does:
            case "keep log":
                self.process.keep_log()
            case "spawn":
                self._execute = True
            case "prove":
                self._cancel_bringing()
                self._bringing = asyncio.create_task(self._bring_up(execute=self._execute))
                self._execute = False
            case "end":
                self._end()
            case "clear" if self._clearing is None:
                self._clearing = asyncio.create_task(self._clear())
            case "wake":
                self._wake(action.at or 0.0)
            case "clear" | "take out" | "put in":
                pass  # being done already; the frontend has heard of the new state

    async def _bring_up(self, *, execute: bool) -> None:
        process = self.process
        try:
            await self._gates.open_again(process, execute=execute)
            await self._gates.prove_again(process)
        except Exception as error:  # whatever it is, this start has failed
            cause = flat(error)
            self._events.add("error", f"{process.id}: {cause}", process=process.id)
            self.feed("broken", f"could not be started: {cause}", why=cause)
            return
        self._health.proven()
        self.feed("proven")
        await self._vital.watch(process)

    async def _clear(self) -> None:
        process = self.process
        while True:
            try:
                left = await asyncio.to_thread(process.clear_leftovers)
                break
            except OSError as error:  # no file descriptor to read /proc with: what is left is not known
                self._events.add("warning", f"{process.id} can't be cleared yet", process=process.id, why=str(error))
                await asyncio.sleep(CLEAR_AGAIN_S)
        if process.pid and not left:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.exited.wait(), LAST_WAIT_S)
        self._clearing = None
        if left:
            self.feed("survivor", why=f"still alive: {', '.join(ownership.describe(member) for member in left)}")
        else:
            self.feed("cleared")

    def _end(self) -> None:
        """SIGTERM to the server alone: it ends its children in order, and what it leaves is cleared."""
        if self.process.pid:
            ownership.signal_all(self.process.server(), signal.SIGTERM)
        else:
            asyncio.get_running_loop().call_soon(self.feed, "exit")

    def _wake(self, at: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()) + 0.001, self.feed, "tick")

    def _exited(self) -> None:
        how = self.process.exit_text()
        self.feed("exit", f"died ({how})", why=cause_text(self.process) or how)

    def _cancel_bringing(self) -> None:
        if self._bringing:
            self._bringing.cancel()
        self._bringing = None


def cause_text(process: Managed) -> str | None:
    """The likely cause of a death, from its log."""
    process.tail.poll()
    return process.tail.cause.cause if process.tail.cause else None
