"""What the terminal shows of a deployment started over ssh: all nodes' events in one column, or one live view."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from types import TracebackType

import msgspec

from dynctl.frontend.messages import RequestRecord
from dynctl.ssh.together import document, line, said, together
from dynctl.store.event import Event
from dynctl.telemetry.status import RunStatus
from dynctl.ui.figures import clean
from dynctl.ui.live import LiveView
from dynctl.ui.plain import request_line
from dynctl.ui.terminal import console, wants_live_view

KEPT_EVENTS = 50


class View:
    """Plain lines with the node in front, JSON lines on stdout, or the live view. `head`: the frontend's node."""

    def __init__(self, nodes: list[str], head: str, *, json: bool, verbose: bool, no_color: bool) -> None:
        self._head, self._json, self._verbose = head, json, verbose
        self._width = max(len(name) for name in nodes)
        self._statuses: dict[str, RunStatus] = {}
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._console = console(no_color=no_color, stderr=True)
        self._live = LiveView(self._console) if not json and wants_live_view(sys.stderr) else None

    def __enter__(self) -> View:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            with contextlib.suppress(OSError):
                self._live.__exit__(kind, error, trace)

    @property
    def picture(self) -> RunStatus | None:
        """The run as last told; None before any supervisor spoke."""
        return together(self._statuses, self._head) if self._statuses else None

    def happened(self, node: str, event: Event) -> None:
        """A node's supervisor recorded something."""
        if self._json:
            print(document(node, event).decode(), flush=True)  # noqa: T201 - stdout is data
        elif event.kind == "request":
            if self._verbose:
                self.say(request_line(msgspec.convert(event.data, RequestRecord)))
        elif self._live is None:
            self.say(line(node, event, self._width))
        if event.kind != "request":
            self._events.append(said(node, event))

    def status(self, node: str, status: RunStatus) -> None:
        """A node's view of the run."""
        self._statuses[node] = status

    def talk(self, node: str, line: str) -> None:
        """A node's dynctl said something on its stderr."""
        self.say(f"{node}: {clean(line)}")

    def say(self, line: str) -> None:
        """One line of talk, above the live view where there is one. A terminal that is gone hides nothing else."""
        with contextlib.suppress(OSError):
            if self._live:
                self._console.print(line)
            else:
                print(line, file=sys.stderr, flush=True)  # noqa: T201

    def tick(self) -> None:
        """Draws what is due."""
        if self._live and (picture := self.picture):
            with contextlib.suppress(OSError):
                self._live.update(picture, list(self._events))
