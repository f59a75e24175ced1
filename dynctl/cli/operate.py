"""`dynctl restart`, `drain` and `scale`: asks a run's supervisor, and shows how it goes."""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec

from dynctl.cli import choose
from dynctl.errors import RunStateError, RuntimeFailure, UsageError
from dynctl.runtime.client import Connection
from dynctl.runtime.messages import Done, Drain, Gone, Happened, Operation, Restart, Undrain
from dynctl.store.event import Event
from dynctl.store.run import RunStore, is_supervised, known_runs
from dynctl.ui.plain import plain_line


def restart(names: list[str], drain_s: float, *, as_json: bool) -> int:
    """Rolling; 0 when everything is back and proven."""
    store, processes = _which(names)
    return operate(store, Restart(processes=tuple(processes), drain_s=drain_s), as_json=as_json)


def drain(names: list[str], drain_s: float, *, undo: bool, as_json: bool) -> int:
    """0 when nothing is in flight there; with `undo` when it takes requests again."""
    store, processes = _which(names)
    if len(processes) != 1:
        raise UsageError("name one worker", fix=f"`dynctl drain {store.name} decode-0`; `dynctl status` shows them")
    asked = Undrain(process=processes[0]) if undo else Drain(process=processes[0], drain_s=drain_s)
    return operate(store, asked, as_json=as_json)


def operate(store: RunStore, asked: Operation, *, as_json: bool, begun: Callable[[], None] = lambda: None) -> int:
    """Asks, shows events until it is done. The operation goes on when this command is interrupted, and that is said.

    `begun` is called once the supervisor has taken it up, or refused it.
    """
    try:
        return _operate(store, asked, begun, as_json=as_json)
    except KeyboardInterrupt:
        print(f"the supervisor goes on with it: `dynctl events {store.name} -f` shows how", file=sys.stderr)  # noqa: T201
        raise


def refuse_unsupervised(store: RunStore) -> None:
    """RunStateError where there is no supervisor to ask."""
    if not is_supervised(store.name):
        raise RunStateError(
            f"the run `{store.name}` has no supervisor", fix=f"`dynctl up {store.name}` starts it, or takes it over"
        )


def _operate(store: RunStore, asked: Operation, begun: Callable[[], None], *, as_json: bool) -> int:
    refuse_unsupervised(store)
    with Connection(store.record().socket) as connection:
        connection.say(asked)
        for message in connection.messages():
            if isinstance(message, Done) or (isinstance(message, Happened) and message.event.kind == "operation"):
                begun()
            if isinstance(message, Happened):
                _show(message.event, as_json=as_json)
            elif isinstance(message, Done):
                if message.failed:
                    raise message.failed.error()
                print(message.said, file=sys.stderr)  # noqa: T201
                return 0
            elif isinstance(message, Gone):
                raise RunStateError(f"the run `{store.name}` ended meanwhile")
    raise RuntimeFailure(
        f"the supervisor of `{store.name}` went away",
        why="it ended, or it is of an earlier version that does not know this operation",
        fix=f"`dynctl status {store.name}` shows what is left",
    )


def _which(names: list[str]) -> tuple[RunStore, list[str]]:
    """`restart prefill-0` means a process of the only run, unless a run has that name."""
    if names and names[0] in {run.name for run in known_runs()}:
        return choose.run(names[0]), names[1:]
    return choose.run(None), names


def _show(event: Event, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(event).decode(), flush=True)  # noqa: T201 - stdout is data
    else:
        print(plain_line(event), file=sys.stderr, flush=True)  # noqa: T201
