"""`dynctl status --watch`: redrawn on a terminal, a line per change off it, one document per line with --json."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Iterator

import msgspec

from dynctl.cli import choose
from dynctl.cli.runs import NOT_RUNNING, current_status
from dynctl.runtime.client import attach
from dynctl.runtime.messages import Happened, StatusNow
from dynctl.runtime.recall import remembered_status
from dynctl.store.event import Event
from dynctl.store.run import RunStore, is_supervised
from dynctl.telemetry.status import ProcessStatus, RunStatus
from dynctl.ui.figures import format_clock
from dynctl.ui.live import LiveView
from dynctl.ui.nodes import node_words
from dynctl.ui.terminal import console, wants_live_view

KEPT_EVENTS = 50
LOOK_S = 2.0
"""How often a run that nobody supervises is looked at."""
ENDED = ("stopped", "failed")
_SECONDS = re.compile(r"for \d+ s")


def watch(name: str | None, *, as_json: bool, no_color: bool) -> int:
    """Until the run ends or the user leaves; exit 5 when it did not run at all."""
    store = choose.run(name)
    if (first := current_status(store)).state in ENDED:
        _say(first, as_json=as_json)
        return NOT_RUNNING
    events: deque[Event] = deque(maxlen=KEPT_EVENTS)
    if not as_json and wants_live_view(sys.stdout):
        with LiveView(console(no_color=no_color)) as live:
            for status in _statuses(store, events):
                live.update(status, list(events))
        return 0
    said: object = None
    for status in _statuses(store, events):
        if as_json or (now := _gist(status)) != said:
            _say(status, as_json=as_json)
            said = None if as_json else now
    return 0


def _statuses(store: RunStore, events: deque[Event]) -> Iterator[RunStatus]:
    """Every status until the run has ended, whoever supervises it meanwhile. `events` takes the latest events."""
    while True:
        last: RunStatus | None = None
        if is_supervised(store.name):
            with attach(store.record().socket) as connection:
                for message in connection.messages():
                    if isinstance(message, Happened):
                        events.append(message.event)
                    elif isinstance(message, StatusNow):
                        last = message.status
                        yield last
        if last is None or last.state not in ENDED:
            last = remembered_status(store)
            yield last
        if last.state in ENDED:
            return
        time.sleep(LOOK_S)


def _gist(status: RunStatus) -> tuple[object, ...]:
    """What a line tells, less the seconds for which a node was not heard: they change with every status."""
    nodes = tuple((node.name, node.state) for node in status.nodes)
    processes = ((p.id, p.state, _ageless(p.phase), p.restarts) for p in status.processes)
    return (status.state, _ageless(status.reason), nodes, *processes)


def _ageless(text: str | None) -> str | None:
    return text and _SECONDS.sub("", text)


def _process_words(process: ProcessStatus, *, named: bool) -> str:
    node = f" on {process.node}" if named else ""
    return f"{process.id}{node} {process.state}" + (f" ({process.phase})" if process.phase else "")


def _say(status: RunStatus, *, as_json: bool) -> None:
    if as_json:
        text = msgspec.json.encode(status).decode()
    else:
        rows = [node_words(node) for node in status.nodes]
        rows += [_process_words(process, named=bool(status.nodes)) for process in status.processes]
        why = f" ({status.reason})" if status.reason else ""
        text = f"{format_clock(time.time())} {status.name} is {status.state}{why}: {', '.join(rows)}"
    print(text, flush=True)  # noqa: T201
