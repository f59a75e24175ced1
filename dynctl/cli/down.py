"""`dynctl down`: ends a run, supervised or not; with `--orphans`, what dead supervisors left on this host."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator

import psutil

from dynctl.cli import choose
from dynctl.counted import counted
from dynctl.errors import RunStateError, RuntimeFailure
from dynctl.runtime import ownership
from dynctl.runtime.client import Connection, SupervisorLost, ask_down
from dynctl.runtime.messages import FromSupervisor, Gone, Happened
from dynctl.runtime.orphans import Orphan, elsewhere, orphans
from dynctl.runtime.recall import live_processes
from dynctl.store.run import RunStore, await_release, is_supervised
from dynctl.ui.plain import plain_line

Texts = tuple[str, ...]

FROZEN_S = 3.0
"""A supervisor that is stopped (SIGSTOP) and silent for so long ends nothing."""
SILENT_S = 30.0
"""Any other speaks twice a second while it is asked, however busy the machine."""


def down(name: str | None, *, timeout_s: float, kill: bool, everywhere: bool = False) -> int:
    """Returns when nothing is left; RunStateError (5) when nothing ran. `everywhere`: on all nodes of the run."""
    store = choose.run(name)
    grace_s = 0.0 if kill else timeout_s
    open_ends: Texts = ()
    if is_supervised(store.name):
        survivors, open_ends = _ask_supervisor(store, timeout_s, kill=kill, everywhere=everywhere)
    else:
        survivors = _end_leftovers(store, grace_s)
        if everywhere:
            open_ends = ("no supervisor was left here that could ask the other nodes",)
    if open_ends and not survivors:
        raise RuntimeFailure(
            f"this node's part of `{store.name}` has ended; other nodes may still run theirs",
            why=open_ends,
            fix="`dynctl down` on each of them",
        )
    _refuse(store.name, survivors)
    return 0


def down_orphans(*, timeout_s: float, kill: bool) -> int:
    """Ends what runs without a supervisor left, and says what that was. Supervised runs are not touched."""
    survivors: list[str] = []
    found = orphans()
    for orphan in found:
        done = orphan.reclaim(0.0 if kill else timeout_s)
        survivors += done.survivors
        segments = f", {counted(done.segments, 'segment')} of shared memory" if done.segments else ""
        segments += f", {counted(done.keys, 'key')} in etcd" if done.keys else ""
        _talk(
            f"reclaimed `{orphan.store.name}` (run {orphan.run_id[:8]}): {counted(done.processes, 'process')}{segments}"
        )
    for place in elsewhere():
        _talk(f"left alone: {place}")
    if not found:
        _talk("no orphans")
    _refuse(", ".join(orphan.store.name for orphan in found), tuple(survivors))
    return 0


def _refuse(name: str, survivors: tuple[str, ...]) -> None:
    if survivors:
        raise RuntimeFailure(
            f"`{name}` has left {counted(len(survivors), 'thing')} that can't be ended",
            why=survivors,
            fix="a process in uninterruptible sleep waits for its device; only its driver or a reboot ends it",
        )


def _ask_supervisor(store: RunStore, timeout_s: float, *, kill: bool, everywhere: bool) -> tuple[Texts, Texts]:
    """Processes that survived, and what is to be said of other nodes."""
    record = store.record()
    with contextlib.suppress(RunStateError), Connection(record.socket) as connection:
        ask_down(connection, grace_s=timeout_s, now=kill, everywhere=everywhere)
        for message in _spoken(connection, record.run_id):
            if isinstance(message, Happened):
                _talk(plain_line(message.event))
            elif isinstance(message, Gone):
                await_release(store.name)
                return message.survivors, message.open_ends
    # it went away without a last word, or will never speak: whatever is there is ended here
    if pid := _kill_supervisor(store.name, record.run_id):
        _talk(f"the supervisor (pid {pid}) does not answer: killed")
    lost = ("the supervisor went away before the other nodes had answered",) if everywhere else ()
    return _end_leftovers(store, 0.0 if kill else timeout_s, quiet=True), lost


def end_silent(store: RunStore) -> Texts:
    """Kills a supervisor that never spoke, and what it started, unless that serves already; what can't be ended."""
    run_id = store.record().run_id
    _kill_supervisor(store.name, run_id)
    return () if store.was_ready(run_id) else _end_leftovers(store, 0.0, quiet=True)


def _kill_supervisor(name: str, run_id: str) -> int | None:
    """Its pid, if there was one."""
    if pid := ownership.supervisors().get(run_id):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await_release(name)
    return pid


def _spoken(connection: Connection, run_id: str) -> Iterator[FromSupervisor]:
    """What the supervisor says, until it goes away or has been silent for too long."""
    heard = time.monotonic()
    while time.monotonic() - heard < (FROZEN_S if _is_frozen(run_id) else SILENT_S):
        try:
            messages = connection.read(1.0)
        except SupervisorLost:
            return
        if messages:
            heard = time.monotonic()
        yield from messages


def _is_frozen(run_id: str) -> bool:
    with contextlib.suppress(psutil.Error):
        pid = ownership.supervisors().get(run_id)
        return pid is not None and psutil.Process(pid).status() == psutil.STATUS_STOPPED
    return False


def _end_leftovers(store: RunStore, grace_s: float, *, quiet: bool = False) -> tuple[str, ...]:
    try:
        found = [Orphan(store.record().run_id, store)]
        alive = bool(live_processes(store))
    except RunStateError as error:  # its record can't be read: what it left is found by environment
        found = orphans(store.name)
        alive = bool(found)
        if not alive:
            fix = "nothing of it runs; `dynctl up` with the topology file starts it anew"
            raise RunStateError(error.cause, where=error.where, why=error.why, fix=fix) from None
    if not alive and not quiet:
        raise RunStateError(f"the run `{store.name}` is not running", fix="`dynctl up` starts it")
    return tuple(survivor for orphan in found for survivor in orphan.reclaim(grace_s).survivors)


def _talk(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
