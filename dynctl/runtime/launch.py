"""Starts a run's supervisor: a process of its own that holds the run's lock and listens on its control socket."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import IO

import psutil

from dynctl import __version__
from dynctl.counted import counted
from dynctl.environ import SECRET_VARIABLE, SUPERVISES_VARIABLE
from dynctl.errors import RunStateError
from dynctl.plan.values import Plan
from dynctl.preflight.gather import self_command
from dynctl.runtime import ownership
from dynctl.runtime.client import Connection, attach
from dynctl.store import paths
from dynctl.store.run import RunRecord, RunStore, is_supervised, try_lock

LOOK_S = 0.5
"""Longer than anybody looks at a lock, shorter than a supervisor lives."""


def launch(plan: Plan, *, requests: bool = False, secret: str | None = None) -> Connection:
    """Lays the run directory and starts the supervisor; the starter's connection to it.

    The connection waits for the supervisor, not the other way round: however early this client is lost, the supervisor
    learns of it. RunStateError when a run of that name is alive, supervised or not: nothing of it is touched.
    `secret`: what the nodes of the run share.
    """
    store = RunStore(plan.name)
    lock = _lock(paths.lock_path(plan.name))
    if lock is None:
        raise already_running(plan.name)
    with lock:
        refuse_leftovers(store)
        record = store.create(plan, __version__)
        if secret:
            store.keep_secret(secret)
        return _start(store, record, lock, requests=requests)


def adopt(store: RunStore, *, requests: bool = False) -> Connection:
    """Starts a supervisor for a run that lost its own; the connection to it. No process of the run is touched by that.

    RunStateError when it is supervised (again), or can't be adopted.
    """
    record = store.record()
    lock = _lock(record.lock or paths.lock_path(store.name))
    if lock is None:
        raise already_running(store.name)
    with lock:
        refuse_adoption(store)
        return _start(store, record, lock, "--adopting", requests=requests)


def _start(store: RunStore, record: RunRecord, lock: IO[bytes], *options: str, requests: bool) -> Connection:
    with _listener(record.socket) as listener:
        starter = attach(record.socket, starter=True, requests=requests)
        descriptors = (lock.fileno(), listener.fileno())
        with open(store.log_path("supervisor"), "ab") as log:
            subprocess.Popen(
                [*self_command(), "_supervise", store.name, *map(str, descriptors), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=descriptors,
                cwd=store.dir,
                env=_environment(record.run_id),
            )
    return starter


def is_unsupervised(store: RunStore) -> bool:
    """Whether a run of that name serves, or did, and has processes here, but no supervisor."""
    try:
        record = store.record()
    except RunStateError:
        return False
    if is_supervised(store.name) or record.elsewhere() or not store.was_ready(record.run_id):
        return False
    return bool(ownership.processes_of(record.run_id))


def refuse_adoption(store: RunStore) -> None:
    """RunStateError when what a run left on disk does not allow to supervise it again."""
    plan = store.whole_plan()
    store.token()
    if len(plan.nodes) > 1:
        store.secret()


def _environment(run_id: str) -> dict[str, str]:
    """The supervisor's own: by it a run's supervisor is found again; the nodes' secret is kept in a file instead."""
    inherited = {name: value for name, value in os.environ.items() if name != SECRET_VARIABLE}
    return {**inherited, SUPERVISES_VARIABLE: run_id}


def _lock(path: Path | str) -> IO[bytes] | None:
    """The run's lock; None when a supervisor holds it. A `status` that looks at it just now holds it for an instant."""
    deadline = time.monotonic() + LOOK_S
    while (lock := try_lock(Path(path))) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    return lock


def already_running(name: str) -> RunStateError:
    """The error for a name that is taken."""
    return RunStateError(
        f"the run `{name}` is already running",
        fix=f"`dynctl status {name}` shows it, `dynctl down {name}` ends it, another `name` starts a second one",
    )


def refuse_leftovers(store: RunStore) -> None:
    """RunStateError when processes of an earlier run of that name are alive without a supervisor."""
    try:
        record = store.record()
    except RunStateError:
        return  # no record, or one that says nothing: nothing alive could be told to be its own
    if record.elsewhere():
        return
    if left := ownership.processes_of(record.run_id):
        raise still_alive(store.name, left)


def still_alive(name: str, left: list[psutil.Process]) -> RunStateError:
    """The error for a run without a supervisor that can't be started, or adopted, as it is."""
    return RunStateError(
        f"the run `{name}` is unsupervised: its supervisor is gone, {counted(len(left), 'process')} left",
        why=", ".join(ownership.describe(process) for process in left[:6]),
        fix=f"`dynctl down {name}` ends them",
    )


def supervise(name: str, lock_descriptor: int, listener_descriptor: int, *, adopting: bool) -> int:
    """The supervisor process, with the lock and the listening socket it was started with."""
    from dynctl.runtime.entry import main

    lock = os.fdopen(lock_descriptor, "ab")
    os.set_inheritable(lock_descriptor, False)
    os.set_inheritable(listener_descriptor, False)
    os.environ.pop(SUPERVISES_VARIABLE, None)  # it stays in /proc, and no child inherits it
    return main(name, socket.socket(fileno=listener_descriptor), lock, adopting=adopting)


def _listener(path: str) -> socket.socket:
    """The control socket, bound before the supervisor starts: who launched it can connect at once."""
    paths.private_dir(Path(path).parent)
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(64)
    return listener
