"""Watches a starting or running deployment from the terminal that started it."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from types import FrameType

import msgspec

from dynctl.cli.down import end_silent
from dynctl.cli.up import UpOptions
from dynctl.errors import DynctlError, ReadyTimeout, RuntimeFailure
from dynctl.frontend.messages import RequestRecord
from dynctl.nodes.failed import Failed
from dynctl.plan.values import Plan
from dynctl.runtime.client import Connection, SupervisorLost, ask_down
from dynctl.runtime.messages import FromSupervisor, Gone, Happened, Ready, StatusNow
from dynctl.store.event import Event
from dynctl.store.run import RunStore, await_release
from dynctl.telemetry.status import RunStatus
from dynctl.ui.live import LiveView
from dynctl.ui.plain import plain_line, request_line
from dynctl.ui.terminal import console, wants_live_view

TICK_S = 0.25
KEPT_EVENTS = 50
GRACE_S = 30.0
FIRST_WORD_S = 120.0
"""A supervisor speaks as soon as it runs: by then even a very busy machine has started it."""
ASKED_S = 5.0
"""As above, once the user wants to leave."""


class Watch:
    """One viewer. Ctrl-C asks the run to drain, a second one kills; losing the terminal detaches once it is ready."""

    def __init__(self, plan: Plan, connection: Connection, options: UpOptions) -> None:
        self._plan, self._connection, self._options = plan, connection, options
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._status: RunStatus | None = None
        self._signals: list[int] = []
        self._heard, self._patient_until = False, time.monotonic() + FIRST_WORD_S
        self._ready = False
        self._failure: DynctlError | None = None
        self._gone: Gone | None = None
        self._console = console(no_color=options.no_color, stderr=True)
        self._live: LiveView | None = None

    def run(self) -> int:
        """Until the run has ended, or is ready when detaching; the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
        if not self._options.json and wants_live_view(sys.stderr):
            with LiveView(self._console) as self._live:
                self._follow()
        else:
            self._follow()
        return self._outcome()

    def _follow(self) -> None:
        while self._gone is None:
            try:
                for message in self._connection.read(TICK_S):
                    self._heard = True
                    self._take(message)
            except SupervisorLost as lost:
                raise self._lost() from lost
            if not self._heard and time.monotonic() > self._patient_until:
                return self._give_up()
            if self._live and self._status:
                self._live.update(self._status, list(self._events))
            if self._ready and self._options.detach and not self._signals:
                return

    def _take(self, message: FromSupervisor) -> None:
        match message:
            case Happened(event=event):
                self._happened(event)
            case StatusNow(status=status):
                self._status = status
            case Ready():
                self._ready = True
            case Failed():
                self._failure = message.error()
            case Gone():
                self._gone = message

    def _happened(self, event: Event) -> None:
        if self._options.json:
            print(msgspec.json.encode(event).decode(), flush=True)  # noqa: T201 - stdout is data
        elif event.kind == "request":
            if self._options.verbose:
                self._talk(request_line(msgspec.convert(event.data, RequestRecord)))
        elif self._live is None:
            self._talk(plain_line(event))
        if event.kind != "request":
            self._events.append(event)

    def _talk(self, line: str) -> None:
        if self._live:
            self._console.print(line)
        else:
            print(line, file=sys.stderr, flush=True)  # noqa: T201

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self._patient_until = min(self._patient_until, time.monotonic() + ASKED_S)
        ask_down(self._connection, grace_s=GRACE_S, now=len(self._signals) > 1)

    def _give_up(self) -> None:
        """The supervisor hangs, or is frozen. Whoever has asked to leave gets no error for it."""
        survivors = end_silent(RunStore(self._plan.name))
        if not self._signals or survivors:
            raise ReadyTimeout(
                f"the supervisor of `{self._plan.name}` has not said a word: killed",
                where=f"{self._plan.run_dir}/logs/supervisor.log",
                why=survivors or None,
                fix="start it again; if that does not help, report it with that log",
                tail=_last_lines(f"{self._plan.run_dir}/logs/supervisor.log"),
            )

    def _outcome(self) -> int:
        self._connection.close()
        if self._gone:
            await_release(self._plan.name)
        if self._failure:
            raise self._failure
        if self._gone and self._gone.survivors:
            raise RuntimeFailure("processes of the run can't be ended", why=self._gone.survivors)
        if self._signals:
            return 128 + self._signals[0]
        if self._gone and not self._ready:
            raise RuntimeFailure(
                f"`{self._plan.name}` was ended before it was ready",
                why="somebody else asked for its end (`dynctl down`, or a signal to its supervisor)",
            )
        if self._gone is None and self._status:
            self._farewell(self._status)
        return 0

    def _farewell(self, status: RunStatus) -> None:
        """Detached and ready: how to reach it, how to look at it, how to end it."""
        name, url = self._plan.name, self._plan.frontend_url
        front = self._plan.process("frontend").node
        here = front == self._plan.node or not self._plan.nodes
        if self._options.sample and here:
            from dynctl.cli.sample import show_sample

            show_sample(self._plan, status, no_color=self._options.no_color)
        verdict = f", KV over {status.transport.verdict}" if status.transport.pairs else ""
        for line in (
            f"{name} is {status.state} at {url}/v1{'' if here else f' on node {front}'}{verdict}",
            f"  look  dynctl status {name}    dynctl logs {name} -f",
            f"  end   dynctl down {name}",
        ):
            print(line, file=sys.stderr)  # noqa: T201

    def _lost(self) -> DynctlError:
        return RuntimeFailure(
            f"the supervisor of `{self._plan.name}` ended without a word",
            where=f"{self._plan.run_dir}/logs/supervisor.log",
            why="workers that were ready keep serving" if self._ready else None,
            fix=f"`dynctl down {self._plan.name}` ends what it left",
            tail=_last_lines(f"{self._plan.run_dir}/logs/supervisor.log"),
        )


def _last_lines(path: str, count: int = 15) -> list[str]:
    try:
        with open(path, errors="replace") as file:
            return [line.rstrip() for line in deque(file, maxlen=count)]
    except OSError:
        return []
