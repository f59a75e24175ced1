"""All nodes of a run from one place: asked, checked, started, watched and ended together."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from dynctl.errors import DynctlError, RuntimeFailure
from dynctl.nodes.failed import Failed
from dynctl.runtime.messages import Gone, Happened, Ready, StatusNow
from dynctl.ssh import trouble
from dynctl.ssh.channel import Channel, Closed, Inbox, Said, Talk
from dynctl.ssh.route import Route
from dynctl.ssh.words import ALIVE_S, Alive, Check, Checked, Clear, End, FromNode, Go, Here, Leave, ToNode
from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus

TICK_S = 0.25
ANSWER_S = 60.0
"""How long a node's dynctl may take to speak: the connection, a login, and Python from a cold disk."""
GRACE_S = 30.0
SPARE_S = 45.0
"""Beyond its grace, what a node gets to end its part: kill, sweep, proof."""


class Viewer(Protocol):
    """Who shows what happens."""

    def happened(self, node: str, event: Event) -> None:
        """A node's supervisor recorded something."""

    def status(self, node: str, status: RunStatus) -> None:
        """A node's view of the run."""

    def talk(self, node: str, line: str) -> None:
        """A node's dynctl said something on its stderr."""

    def tick(self) -> None:
        """Time has passed."""


Reach = Callable[[Route, Inbox], Channel]
"""Opens a channel to a node's dynctl."""


class Cut(Exception):
    """A signal asks for the end."""


class Fleet:
    """`head`: the node of the frontend, which ends first so that requests in flight can. `signals`: those that came."""

    def __init__(self, run: str, routes: Mapping[str, Route], head: str, viewer: Viewer, reach: Reach) -> None:
        self._run, self._routes, self._head, self._viewer, self._reach = run, routes, head, viewer, reach
        self._inbox: Inbox = queue.Queue()
        self._channels: dict[str, Channel] = {}
        self._here: dict[str, Here] = {}
        self._checked: set[str] = set()
        self._ready: set[str] = set()
        self._gone: dict[str, Gone] = {}
        self._closed: dict[str, Closed] = {}
        self._failures: dict[str, Failed] = {}
        self.signals: list[int] = []
        self._started = False
        self._ending = False
        self._asked: set[str] = set()
        self._said_at = 0.0
        self.left = False
        """Whether the run was left alone."""

    def signalled(self, number: int) -> None:
        """For a signal handler: the first asks for an orderly end, a second one kills."""
        self.signals.append(number)

    def call(self, own: Here) -> None:
        """Reaches every node at once; the first error, with the others' causes, where one has not the same dynctl."""
        for name, route in self._routes.items():
            self._channels[name] = self._reach(route, self._inbox)
        deadline = time.monotonic() + ANSWER_S
        self._until(lambda: self._here.keys() | self._closed.keys() == self._routes.keys(), deadline)
        errors: list[DynctlError] = []
        for name, route in self._routes.items():
            if name in self._here:
                if error := trouble.other_dynctl(route, self._here[name], own):
                    errors.append(error)
            elif name in self._closed:
                errors.append(trouble.unreached(route, self._closed[name].code, self._closed[name].lines))
            else:
                errors.append(trouble.silent(route, ANSWER_S, self._channels[name].lines()))
        if errors:
            raise trouble.first_of(errors)

    def check(self, question: Callable[[str], Check]) -> None:
        """Lets every node look for itself; raises the first refusal, with the node named."""
        for name in self._routes:
            self._say(name, question(name))
        self._until(lambda: self._checked == self._routes.keys() or self._trouble() is not None)
        if error := self._trouble():
            raise error

    def start(self) -> None:
        """Starts all."""
        self._started = True
        for name in self._routes:
            self._say(name, Go())

    def watch(self, *, detach: bool) -> None:
        """Until all nodes' parts have ended, or all are ready when detaching. Raises what makes the run end."""
        self._until(lambda: self._settled(detach=detach) or self._trouble() is not None)
        if error := self._trouble():
            raise error

    def leave(self) -> None:
        """Goes away and leaves the run."""
        self.left = True
        for name in self._channels:
            self._say(name, Leave())
        self._hang_up()

    def end(self) -> tuple[str, ...]:
        """Ends every part that was begun, in order after an ordinary signal; what is to be said of nodes left open."""
        self._ending = True
        if self._started:
            orderly = bool(self.signals) and self._ready == self._routes.keys() and self._is_open(self._head)
            deadline = time.monotonic() + GRACE_S + SPARE_S
            if orderly:
                self._ask_end([self._head], GRACE_S)
                self._until(lambda: not self._is_open(self._head) or len(self.signals) > 1, deadline)
            self._ask_end(self._open(), GRACE_S)
            self._until(lambda: not self._open() or len(self.signals) > 1, deadline + GRACE_S)
            if self._open():
                for name in self._open():
                    self._say(name, End(grace_s=0.0, now=True))
                self._until(lambda: not self._open(), time.monotonic() + SPARE_S)
            self._clear()
        self._hang_up()
        return self._open_ends() if self._started else ()

    def outcome(self) -> DynctlError | None:
        """Why the run failed, in the words of the node at fault; None where it did not."""
        if not self._failures:
            return None
        node, failed = trouble.culprit(self._failures)
        return trouble.refused(node, failed)

    # within

    def _clear(self) -> None:
        """Ends what nodes may still run whose connection was lost, over a new one."""
        lost = [name for name in self._routes if name not in self._gone]
        for name in lost:
            self._channels[name].close()
            self._closed.pop(name, None)
            self._channels[name] = self._reach(self._routes[name], self._inbox)
            self._say(name, Clear(name=self._run))
        self._until(lambda: not self._open() or len(self.signals) > 2, time.monotonic() + SPARE_S)

    def _settled(self, *, detach: bool) -> bool:
        return self._ready == self._routes.keys() if detach else self._gone.keys() == self._routes.keys()

    def _trouble(self) -> DynctlError | None:
        """What ends the whole run: a failure, an end before ready, a connection that is lost."""
        if error := self.outcome():
            return error
        whole = self._ready == self._routes.keys()
        for name in self._gone:
            if not whole:
                return RuntimeFailure(
                    f"the part of node {name} was ended before the deployment was ready",
                    why="somebody else asked for its end (`dynctl down`, or a signal to its supervisor)",
                )
        for name, closed in self._closed.items():
            if name not in self._gone:
                return self._lost(self._routes[name], closed)
        return None

    def _lost(self, route: Route, closed: Closed) -> DynctlError:
        what = "the ssh connection to" if route.destination else "the dynctl of"
        end = "was lost" if route.destination else "ended without a word"
        return RuntimeFailure(
            f"{what} {route} {end}",
            where=f"nodes.{route.node}",
            why=tuple(closed.lines[-trouble.MOST_LINES :]) or (f"exit code {closed.code}",),
            fix="`up -d` leaves a run alone once it is ready" if self._ready == self._routes.keys() else None,
        )

    def _until(self, reached: Callable[[], bool], deadline: float | None = None) -> None:
        """Takes in what comes until that is so, or the time is over. Raises Cut for a signal while nothing ends yet."""
        while not reached() and (deadline is None or time.monotonic() < deadline):
            if self.signals and not self._ending:
                raise Cut
            try:
                self._take(self._inbox.get(timeout=TICK_S))
                while True:
                    self._take(self._inbox.get_nowait())
            except queue.Empty:
                pass
            if time.monotonic() - self._said_at >= ALIVE_S:
                self._said_at = time.monotonic()
                for name in self._open():
                    self._say(name, Alive())
            self._viewer.tick()

    def _take(self, item: Said | Talk | Closed) -> None:
        match item:
            case Said(node=node, message=message):
                self._heard(node, message)
            case Talk(node=node, line=line):
                self._viewer.talk(node, line)
            case Closed(node=node):
                self._closed[node] = item

    def _heard(self, node: str, message: FromNode) -> None:
        match message:
            case Here():
                self._here[node] = message
            case Checked():
                self._checked.add(node)
            case Happened(event=event):
                self._viewer.happened(node, event)
            case StatusNow(status=status):
                self._viewer.status(node, status)
            case Ready():
                self._ready.add(node)
            case Failed():
                # what fails once the others are asked to end says nothing of the cause, if there was another one
                if not self._ending or self._failures:
                    self._failures[node] = message
            case Gone():
                self._gone[node] = message

    def _is_open(self, node: str) -> bool:
        return node not in self._gone and node not in self._closed

    def _open(self) -> list[str]:
        return [name for name in self._channels if self._is_open(name)]

    def _ask_end(self, names: list[str], grace_s: float) -> None:
        for name in names:
            if name not in self._asked:
                self._asked.add(name)
                self._say(name, End(grace_s=grace_s))

    def _say(self, node: str, message: ToNode) -> None:
        self._channels[node].say(message)

    def _hang_up(self) -> None:
        for channel in self._channels.values():
            channel.close()
        now = time.monotonic()
        for name, channel in self._channels.items():
            # a node that never spoke has nothing to put away
            channel.kill(now + SPARE_S if name in self._here else now + TICK_S)

    def _open_ends(self) -> tuple[str, ...]:
        said = []
        for name, route in self._routes.items():
            if gone := self._gone.get(name):
                said += [f"{route}: still alive: {survivor}" for survivor in gone.survivors]
            else:
                said.append(f"{route} did not say that its part has ended")
        return tuple(said)
