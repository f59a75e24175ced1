"""Which processes are a run's, and which runs have no supervisor: by real processes of this test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from dynctl.engines.spec import ProcessSpec
from dynctl.environ import RUN_DIR_VARIABLE, RUN_ID_VARIABLE, SUPERVISES_VARIABLE
from dynctl.errors import HostError
from dynctl.runtime import cgroups, ipc, ownership, spawned
from dynctl.runtime.leftovers import Leftovers
from dynctl.runtime.orphans import elsewhere, orphans
from dynctl.runtime.shared_memory import SHARED_MEMORY
from dynctl.runtime.spawn import spawn
from dynctl.store import paths
from dynctl.store.run import SPAWNED_FILE, RunRecord, RunStore
from tests.unit.plan.machines import made

pytestmark = pytest.mark.usefixtures("places")
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(**variables: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "60"], env={**os.environ, **variables}))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def marks(run_id: str, directory: Path) -> dict[str, str]:
    return {RUN_ID_VARIABLE: run_id, RUN_DIR_VARIABLE: str(directory)}


def test_an_orphan_is_known_by_its_processes_alone(start: Start) -> None:
    """The run's directory may be gone."""
    run_id, directory = uuid.uuid4().hex, paths.state_root() / "gone"
    process = start(**marks(run_id, directory))
    until(orphans)
    (found,) = orphans()
    assert (found.run_id, found.store.name) == (run_id, "gone")
    assert orphans("another") == []
    done = found.reclaim(10.0)
    assert (done.processes, done.survivors) == (1, ())
    process.wait(10)
    assert orphans() == []


def test_a_supervised_run_is_none(start: Start) -> None:
    """However frozen its supervisor is."""
    run_id, directory = uuid.uuid4().hex, paths.state_root() / "live"
    start(**marks(run_id, directory))
    until(orphans)
    supervisor = start(**{SUPERVISES_VARIABLE: run_id})
    psutil.Process(supervisor.pid).suspend()
    until(lambda: ownership.supervisors().get(run_id) == supervisor.pid)
    assert orphans() == []


def test_another_state_directory_is_not_ours(start: Start, tmp_path: Path) -> None:
    run_id = uuid.uuid4().hex
    process = start(**marks(run_id, tmp_path / "other" / "live"))
    until(lambda: ownership.processes_of(run_id))
    assert orphans() == []
    assert process.poll() is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"machine_id": "0123"}, "another machine"),
        ({"boot_id": "0123"}, "another boot"),
        ({"pid_namespace": "pid:[1]"}, "another pid namespace"),
    ],
)
def test_what_is_elsewhere_is_named_and_left_alone(change: dict[str, str], place: str) -> None:
    """Even if its pids happen to be somebody's here."""
    store = RunStore("far")
    record = store.create(made(), "1")
    spawned.note(store.dir, record.run_id, "decode-0", os.getppid(), None)
    assert [orphan.run_id for orphan in orphans()] == [record.run_id]
    far = msgspec.structs.replace(record, **change)
    (store.dir / "run.json").write_bytes(msgspec.json.encode(far))
    assert orphans() == []
    assert elsewhere() == [f"`far` of {place}"]


def test_a_truncated_record_hides_nothing(start: Start) -> None:
    store = RunStore("torn")
    record = store.create(made(), "1")
    start(**marks(record.run_id, store.dir))
    until(lambda: ownership.processes_of(record.run_id))
    (store.dir / "run.json").write_bytes((store.dir / "run.json").read_bytes()[:20])
    (store.dir / SPAWNED_FILE).write_bytes(b'{"run_id": "')
    (found,) = orphans()
    assert found.run_id == record.run_id
    assert found.reclaim(10.0).survivors == ()


def test_a_pid_is_the_runs_only_with_its_start_time() -> None:
    store = RunStore("x")
    record: RunRecord = store.create(made(), "1")
    spawned.note(store.dir, record.run_id, "decode-0", os.getpid(), None)
    (one,) = spawned.read(store.dir, record.run_id)
    assert spawned.is_alive(one)
    assert spawned.read(store.dir, "another run") == []
    reused = msgspec.structs.replace(one, start_ticks=one.start_ticks - 1)
    assert not spawned.is_alive(reused)
    assert spawned.session_members(reused) == set()


ESCAPE = "import os, sys; os.fork() and os._exit(0); os.setsid(); os.execve('/bin/sleep', ['sleep', '60'], {})"


@pytest.mark.skipif(cgroups.own() is None, reason="no control group may be made here")
def test_a_process_that_leaves_session_parent_and_environment_is_found() -> None:
    store, run_id = RunStore("x"), uuid.uuid4().hex
    store.dir.mkdir(parents=True)
    grouped = f"while '{run_id}' not in open('/proc/self/cgroup').read(): pass"  # it is put there just after its start
    waits = f"{grouped}\nimport subprocess, sys; subprocess.run([sys.executable, '-c', {ESCAPE!r}]); input()"
    spec = ProcessSpec(id="decode-0", role="decode", argv=(sys.executable, "-c", f"{waits}"))
    parent = spawn(spec, run_id, store.dir / "log", store.dir)
    parent.wait(20)

    def escaped() -> list[psutil.Process]:
        return [p for p in ownership.processes_of(run_id, "decode-0") if p.name() == "sleep"]

    until(escaped)
    assert RUN_ID_VARIABLE not in escaped()[0].environ()
    assert escaped()[0].ppid() != parent.pid
    done = Leftovers(run_id, store).end(0.0)
    assert done.survivors == ()
    assert not ownership.processes_of(run_id)
    assert not cgroups.of_run(run_id)


def test_an_engines_own_sockets_go_with_its_run() -> None:
    store = RunStore("r")
    paths.private_dir(store.dir)
    run_id, script = uuid.uuid4().hex, "import os, time; open(os.environ['SOCKETS'] + '/one', 'w'); time.sleep(60)"
    spec = ProcessSpec(id="w", role="worker", argv=(sys.executable, "-c", script), sockets_variable="SOCKETS")
    other = ipc.directory("another")
    paths.private_dir(other)
    process = spawn(spec, run_id, store.dir / "w.log", store.dir)
    until((ipc.directory(run_id) / "one").exists)
    process.kill()
    process.wait()
    assert Leftovers(run_id, store).end(0.0).survivors == ()
    assert not ipc.directory(run_id).exists()
    assert other.is_dir(), "what is not the run's stays"


def test_a_directory_too_long_for_sockets_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipc, "NAME_BYTES", paths.SOCKET_PATH_BYTES)
    assert ipc.variables("SOCKETS", "r") == {}


def test_a_lost_temporary_directory_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> Path:
        raise HostError("can't make it")

    monkeypatch.setattr(paths, "runtime_dir", gone)
    ipc.remove("r")


SLOW_END = """
import mmap, os, signal, sys, time
ours, theirs = os.pipe()
if not (child := os.fork()):
    os.read(ours, 1)
    with open(os.environ["SEGMENT"], "ab+") as file:
        file.truncate(4096)
        held = mmap.mmap(file.fileno(), 4096)
    time.sleep(60)

def end(*_):
    os.write(theirs, b"1")
    time.sleep(0.6)
    os.kill(child, signal.SIGKILL)
    os._exit(0)

signal.signal(signal.SIGTERM, end)
open(os.environ["ON"], "w").close()
signal.pause()
"""
"""An engine that takes its time to end, makes shared memory meanwhile, and ends its worker hard."""


def test_shared_memory_that_is_made_while_an_engine_ends_goes_with_it() -> None:
    store = RunStore("r")
    paths.private_dir(store.dir)
    segment = Path(SHARED_MEMORY) / f"dynctl-test-{uuid.uuid4().hex}"
    env = {"SEGMENT": str(segment), "ON": str(store.dir / "on")}
    spec = ProcessSpec(id="w", role="worker", argv=(sys.executable, "-c", SLOW_END), env=env)
    run_id = uuid.uuid4().hex
    process = spawn(spec, run_id, store.dir / "w.log", store.dir)
    try:
        until((store.dir / "on").exists)
        done = Leftovers(run_id, store).end(10.0)
        process.wait()
        assert done.survivors == ()
        assert not segment.exists()
    finally:
        segment.unlink(missing_ok=True)
