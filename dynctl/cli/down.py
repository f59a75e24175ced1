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

Texts = tuple[str, ...]


def down(name: str | None, *, timeout_s: float, kill: bool, everywhere: bool = False) -> int:
    """Returns when nothing is left; RunStateError (5) when nothing ran. `everywhere`: on all nodes of the run."""
    store = choose.run(name)
    open_ends: Texts = ()
    if is_supervised(store.name):
        survivors, open_ends = _ask_supervisor(store, timeout_s, kill=kill, everywhere=everywhere)
    else:
        survivors = _end_leftovers(store, 0.0 if kill else timeout_s)
        if everywhere:
            open_ends = ("no supervisor was left here that could ask the other nodes",)
    if open_ends and not survivors:
        raise RuntimeFailure(
            f"this node's part of `{store.name}` has ended; other nodes may still run theirs",
            why=open_ends,
            fix="`dynctl down` on each of them",
        )
    if survivors:
        raise RuntimeFailure(
            f"{len(survivors)} processes of `{store.name}` can't be ended",
            why=survivors,
            fix="a process in uninterruptible sleep waits for its device; only its driver or a reboot ends it",
        )
    return 0


def _ask_supervisor(store: RunStore, timeout_s: float, *, kill: bool, everywhere: bool) -> tuple[Texts, Texts]:
    """Processes that survived, and what is to be said of other nodes."""
    with Connection(store.record().socket) as connection:
        ask_down(connection, grace_s=timeout_s, now=kill, everywhere=everywhere)
        for message in connection.messages():
            if isinstance(message, Happened):
                _talk(plain_line(message.event))
            elif isinstance(message, Gone):
                await_release(store.name)
                return message.survivors, message.open_ends
    # the supervisor went away without a last word: whatever it left is ended here
    lost = ("the supervisor went away before the other nodes had answered",) if everywhere else ()
    return _end_leftovers(store, timeout_s, quiet=True), lost


def _end_leftovers(store: RunStore, grace_s: float, *, quiet: bool = False) -> tuple[str, ...]:
    if not live_processes(store) and not quiet:
        raise RunStateError(f"the run `{store.name}` is not running", fix="`dynctl up` starts it")
    survivors = ownership.end_all(lambda: live_processes(store), grace_s=grace_s)
    return tuple(ownership.describe(process) for process in survivors)


def _talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
