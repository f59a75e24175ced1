"""What dead supervisors left on this host: found by the processes' own environment and by the runs' records.

Only what this state directory's runs started counts as ours: same user, same pid namespace, no live supervisor. Runs of
other machines, boots and pid namespaces are named and left alone: home directories are shared between nodes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from dynctl.environ import RUN_DIR_VARIABLE, RUN_ID_VARIABLE
from dynctl.errors import RunStateError
from dynctl.runtime import ownership
from dynctl.runtime.leftovers import Leftovers, Reclaimed
from dynctl.store import paths
from dynctl.store.run import SPAWNED_FILE, RunRecord, RunStore, is_supervised


class Orphan(msgspec.Struct, frozen=True):
    """A run without a supervisor that has not ended in order."""

    run_id: str
    store: RunStore

    def reclaim(self, grace_s: float) -> Reclaimed:
        """Ends it, and removes its control socket."""
        done = Leftovers(self.run_id, self.store).end(grace_s)
        with contextlib.suppress(OSError):
            if not is_supervised(self.store.name):
                paths.socket_path(self.store.name).unlink(missing_ok=True)
        return done


def orphans(name: str | None = None) -> list[Orphan]:
    """Those of this host, or of that name, by name."""
    supervised = ownership.supervisors()
    found: dict[str, RunStore] = {}
    for run_id, directory in _by_environment():
        found[run_id] = RunStore(directory.name, directory)
    for store in _unended(paths.state_root()):
        with contextlib.suppress(RunStateError):
            record = store.record()
            if record.elsewhere() is None:
                found.setdefault(record.run_id, store)
    mine = {run_id: store for run_id, store in found.items() if run_id not in supervised and not _held(run_id, store)}
    chosen = [Orphan(run_id, store) for run_id, store in mine.items() if name in (None, store.name)]
    return sorted(chosen, key=lambda orphan: (orphan.store.name, orphan.run_id))


def elsewhere() -> list[str]:
    """Runs that have not ended in order, but not here, in words."""
    found = []
    for root in sorted(paths.state_root().parent.glob("*")):
        for store in _unended(root):
            with contextlib.suppress(RunStateError):
                if (place := store.record().elsewhere()) is not None:
                    found.append(f"`{store.name}` of {place}")
    return found


def _by_environment() -> Iterator[tuple[str, Path]]:
    """Run id and directory of every process of this user's and namespace that a run of this state directory started."""
    root, namespace = os.path.realpath(paths.state_root()), paths.pid_namespace()
    for pid in psutil.pids():
        variables = ownership.environment(pid)
        run_id, directory = variables.get(RUN_ID_VARIABLE), variables.get(RUN_DIR_VARIABLE)
        if not (run_id and directory) or os.path.realpath(os.path.dirname(directory)) != root:
            continue
        with contextlib.suppress(OSError):
            same_user = os.stat(f"/proc/{pid}").st_uid == os.getuid()
            if same_user and os.readlink(f"/proc/{pid}/ns/pid") == namespace:
                yield run_id, Path(directory)


def _unended(root: Path) -> list[RunStore]:
    return [RunStore(path.parent.name, path.parent) for path in sorted(root.glob(f"*/{SPAWNED_FILE}"))]


def _held(run_id: str, store: RunStore) -> bool:
    """Whether a supervisor holds the lock of that very run: the name may have been taken by a later one."""
    if not is_supervised(store.name):
        return False
    record: RunRecord | None = None
    with contextlib.suppress(RunStateError):
        record = store.record()
    return record is None or record.run_id == run_id
