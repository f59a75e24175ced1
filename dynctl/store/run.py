"""A run on disk: its plan, its identity, its token, its events, and whether a supervisor holds its lock."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from dynctl.engines.dynamo_planes import OF_ONE_RUN
from dynctl.errors import HostError, RunStateError
from dynctl.plan import redact
from dynctl.plan.values import Plan
from dynctl.replacing import replace
from dynctl.store import paths
from dynctl.store.event import Event
from dynctl.store.rotation import generations

T = TypeVar("T")
SPAWNED_FILE = "spawned.jsonl"
"""What the run has started. It is there until the run has ended in order."""
SEGMENTS_FILE = "segments.jsonl"
"""Shared memory that its processes were seen to map: there as long."""
TOPOLOGY_FILE = "topology.json"
READY_FILE = "ready"
"""Holds the run's id once every gate was open: such a run is adopted, one that never served is reclaimed."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Who this run is. A process is the run's if its environment carries `run_id` and boot and pid namespace match."""

    schema: int = 1
    name: str
    run_id: str
    boot_id: str
    pid_namespace: str
    machine_id: str = ""
    started_at: float
    socket: str
    lock: str = ""
    dynctl_version: str = ""

    def elsewhere(self) -> str | None:
        """Where its processes are if they can't be seen from here: homes are shared between nodes and containers."""
        if self.machine_id and self.machine_id != paths.machine_id():
            return "another machine"
        if self.boot_id != paths.boot_id():
            return "another boot"
        return "another pid namespace" if self.pid_namespace != paths.pid_namespace() else None


class RunStore:
    """The files of one run. Nothing here starts or stops anything."""

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self.name = name
        self.dir = directory or paths.run_dir(name)
        self.logs = self.dir / "logs"
        self.ucx = self.dir / "ucx"

    def create(self, plan: Plan, version: str) -> RunRecord:
        """Lays a fresh run directory: earlier logs and events make way, the token is new."""
        for directory in (self.dir, self.logs, self.ucx):
            paths.private_dir(directory)
        logs = (*self.logs.glob("*.log*"), *self.ucx.glob("*.log*"), *self.dir.glob("events.jsonl*"))
        for stale in (*logs, *(self.dir / name for name in (SPAWNED_FILE, SEGMENTS_FILE, READY_FILE))):
            stale.unlink(missing_ok=True)
        for name in OF_ONE_RUN:
            shutil.rmtree(self.dir / name, ignore_errors=True)
        record = RunRecord(
            name=self.name,
            run_id=uuid.uuid4().hex,
            boot_id=paths.boot_id(),
            pid_namespace=paths.pid_namespace(),
            machine_id=paths.machine_id(),
            started_at=time.time(),
            socket=str(paths.socket_path(self.name)),
            lock=str(paths.lock_path(self.name)),
            dynctl_version=version,
        )
        write_private(self.dir / "token", secrets.token_urlsafe(32).encode())
        self._write_plan(plan, {})
        write_private(self.dir / "run.json", msgspec.json.encode(record))
        return record

    def keep_plan(self, plan: Plan, topology: str) -> None:
        """Another plan for the run, and the topology (JSON) that it follows from. HostError if they can't be written.

        At any moment the plan on disk is whole, and its secrets beside it.
        """
        self._write_plan(plan, self._read("secrets.json", redact.Secrets))
        write_private(self.dir / TOPOLOGY_FILE, topology.encode())

    def _write_plan(self, plan: Plan, before: redact.Secrets) -> None:
        shown, hidden = redact.split(plan)
        if before:
            write_private(self.dir / "secrets.json", msgspec.json.encode(before | hidden))
        write_private(self.dir / "plan.json", msgspec.json.format(msgspec.json.encode(shown), indent=1))
        write_private(self.dir / "secrets.json", msgspec.json.encode(hidden))

    def topology(self) -> bytes:
        """The topology that the run's plan follows from, as JSON; RunStateError if it can't be read."""
        try:
            return (self.dir / TOPOLOGY_FILE).read_bytes()
        except OSError as error:
            raise RunStateError(
                f"the topology of the run `{self.name}` can't be read",
                where=str(self.dir / TOPOLOGY_FILE),
                why=error.strerror,
            ) from error

    def plan(self) -> Plan:
        """The run's plan with its secrets hidden; RunStateError if it can't be read."""
        return self._read("plan.json", Plan)

    def whole_plan(self) -> Plan:
        """The run's plan as it is executed; RunStateError if it can't be read."""
        return redact.restore(self.plan(), self._read("secrets.json", redact.Secrets))

    def record(self) -> RunRecord:
        """The run's identity; RunStateError if it can't be read."""
        return self._read("run.json", RunRecord)

    def token(self) -> str:
        """The run's secret token."""
        return (self.dir / "token").read_text()

    def secret(self) -> str:
        """What the run's nodes share; RunStateError where it was not kept."""
        try:
            return (self.dir / "secret").read_text()
        except OSError as error:
            raise RunStateError(
                f"the secret of the run `{self.name}` can't be read",
                where=str(self.dir / "secret"),
                why=error.strerror,
                fix="`dynctl up` with the topology file starts it anew",
            ) from error

    def keep_secret(self, secret: str) -> None:
        """Keeps it for restarts, for its owner alone to read."""
        write_private(self.dir / "secret", secret.encode())

    def log_path(self, process_id: str) -> Path:
        """Where that process's output goes."""
        return self.logs / f"{process_id}.log"

    def events(self) -> list[Event]:
        """Events so far, those of rotated files first. A half-written last line is left out."""
        path = self.dir / "events.jsonl"
        decoded = []
        for part in (*reversed(generations(path)), path):
            with contextlib.suppress(OSError):
                for line in part.read_bytes().splitlines():
                    with contextlib.suppress(msgspec.DecodeError):
                        decoded.append(msgspec.json.decode(line, type=Event))
        return decoded

    def mark_ready(self, run_id: str) -> None:
        """Every gate of that run was open once. HostError where that can't be written."""
        write_private(self.dir / READY_FILE, run_id.encode())

    def was_ready(self, run_id: str) -> bool:
        """Whether every gate of that run was open once. Where that was not kept, its events tell."""
        try:
            return (self.dir / READY_FILE).read_text() == run_id
        except (OSError, UnicodeDecodeError):
            return any(event.kind == "run.state" and event.state in {"ready", "degraded"} for event in self.events())

    def ended(self) -> None:
        """Nothing of the run is left."""
        with contextlib.suppress(OSError):
            (self.dir / SEGMENTS_FILE).unlink(missing_ok=True)
            (self.dir / SPAWNED_FILE).unlink(missing_ok=True)

    def exists(self) -> bool:
        """Whether a run of that name left a record here."""
        return (self.dir / "run.json").is_file()

    def _read(self, name: str, kind: type[T]) -> T:
        try:
            return msgspec.json.decode((self.dir / name).read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError) as error:
            raise RunStateError(
                f"the run `{self.name}` can't be read",
                where=str(self.dir / name),
                why=str(error),
                fix=f"`dynctl down {self.name}` ends what is left; `dynctl up` with the topology file starts it anew",
            ) from error


def known_runs() -> list[RunStore]:
    """Every run that left a record on this machine, by name."""
    root = paths.state_root()
    found = sorted(path.parent for path in root.glob("*/run.json")) if root.is_dir() else []
    return [RunStore(path.name, path) for path in found]


def is_supervised(name: str) -> bool:
    """Whether a live supervisor holds that run's lock."""
    lock = try_lock(_lock_of(name), shared=True)
    if lock is None:
        return True
    lock.close()
    return False


def _lock_of(name: str) -> Path:
    """The lock the run was started with: another terminal may have another TMPDIR."""
    store = RunStore(name)
    with contextlib.suppress(RunStateError):
        if store.exists() and Path(recorded := store.record().lock).is_file():
            return Path(recorded)
    return paths.lock_path(name)


def await_release(name: str, timeout_s: float = 10.0) -> None:
    """Returns once a supervisor that has said its last word let go of its run's lock: the name is free again then."""
    deadline = time.monotonic() + timeout_s
    while is_supervised(name) and time.monotonic() < deadline:
        time.sleep(0.01)


def try_lock(path: Path, *, shared: bool = False) -> IO[bytes] | None:
    """The locked file, or None when another process holds it. Who only looks takes it `shared`: lookers don't clash."""
    handle = open(path, "ab")  # noqa: SIM115 - the caller keeps it open: closing it gives the lock back
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle


@contextlib.contextmanager
def planning_lock() -> Iterator[None]:
    """Held from looking at free ports until the plan is on disk, so that two runs never plan the same port."""
    with open(paths.runtime_dir() / "planning.lock", "ab") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_private(path: Path, content: bytes) -> None:
    """Replaces `path` whole, readable by its owner only. HostError where that can't be done; it is then as before."""
    try:
        replace(path, content, private=True)
    except OSError as error:
        raise HostError(f"can't write the run's files: {error.strerror}", where=str(path)) from error
