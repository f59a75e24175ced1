"""`dynctl down`: ends a run, supervised or not."""

from __future__ import annotations

import sys

from dynctl.cli import choose
from dynctl.errors import RunStateError, RuntimeFailure
from dynctl.runtime import ownership
from dynctl.runtime.client import Connection, ask_down
from dynctl.runtime.messages import Gone, Happened
from dynctl.runtime.recall import live_processes
from dynctl.store.run import RunStore, await_release, is_supervised
from dynctl.ui.plain import plain_line


def down(name: str | None, *, timeout_s: float, kill: bool) -> int:
    """Returns when nothing is left; RunStateError (5) when nothing ran."""
    store = choose.run(name)
    if is_supervised(store.name):
        survivors = _ask_supervisor(store, timeout_s, kill=kill)
    else:
        survivors = _end_leftovers(store, 0.0 if kill else timeout_s)
    if survivors:
        raise RuntimeFailure(
            f"{len(survivors)} processes of `{store.name}` can't be ended",
            why=survivors,
            fix="a process in uninterruptible sleep waits for its device; only its driver or a reboot ends it",
        )
    return 0


def _ask_supervisor(store: RunStore, timeout_s: float, *, kill: bool) -> tuple[str, ...]:
    with Connection(store.record().socket) as connection:
        ask_down(connection, grace_s=timeout_s, now=kill)
        for message in connection.messages():
            if isinstance(message, Happened):
                _talk(plain_line(message.event))
            elif isinstance(message, Gone):
                await_release(store.name)
                return message.survivors
    # the supervisor went away without a last word: whatever it left is ended here
    return _end_leftovers(store, timeout_s, quiet=True)


def _end_leftovers(store: RunStore, grace_s: float, *, quiet: bool = False) -> tuple[str, ...]:
    if not live_processes(store) and not quiet:
        raise RunStateError(f"the run `{store.name}` is not running", fix="`dynctl up` starts it")
    survivors = ownership.end_all(lambda: live_processes(store), grace_s=grace_s)
    return tuple(ownership.describe(process) for process in survivors)


def _talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
