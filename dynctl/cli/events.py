"""`dynctl events`: a run's event log, so far and as it goes on."""

from __future__ import annotations

import sys
import time

import msgspec

from dynctl.cli import choose
from dynctl.errors import RunStateError, UsageError
from dynctl.runtime.client import attach
from dynctl.runtime.messages import Happened
from dynctl.store.event import Event
from dynctl.store.run import RunStore, is_supervised
from dynctl.topology.durations import parse_duration


def events(name: str | None, *, follow: bool, processes: list[str], since: str | None, as_json: bool) -> int:
    """Prints events; with `follow` until the run ends or the user detaches. No `processes`: all, and the run's."""
    store = choose.run(name)
    _refuse_unknown(store, processes)
    earliest = time.time() - _seconds(since) if since else 0.0

    def take(event: Event) -> None:
        if event.at >= earliest and (not processes or event.process in processes):
            _print(event, as_json=as_json)

    if not (follow and is_supervised(store.name)):
        for event in store.events():
            take(event)
        return 0
    with attach(store.record().socket) as connection:
        seen = set()
        for event in store.events():  # the supervisor remembers the latest only
            take(event)
            seen.add((event.seq, event.at))
        for message in connection.messages():
            if isinstance(message, Happened) and (message.event.seq, message.event.at) not in seen:
                take(message.event)
    return 0


def _refuse_unknown(store: RunStore, processes: list[str]) -> None:
    if not processes:
        return
    try:
        known = {spec.id for spec in store.plan().processes}
    except RunStateError:
        return
    known |= {event.process for event in store.events() if event.process}  # scaled away since
    for process in processes:
        if process not in known:
            raise UsageError(f"`{store.name}` has no process `{process}`", why=f"there are: {', '.join(sorted(known))}")


def _seconds(since: str) -> float:
    try:
        return parse_duration(since)
    except ValueError as error:
        raise UsageError(f"`{since}` {error}", where="--since") from error


def _print(event: Event, *, as_json: bool) -> None:
    from dynctl.ui.plain import plain_line

    text = msgspec.json.encode(event).decode() if as_json else plain_line(event)
    print(text, file=sys.stdout, flush=True)  # noqa: T201
