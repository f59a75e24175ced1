"""Which shared memory is a run's, and that nothing else is touched. Real segments, all of them removed."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from dynctl.runtime import procfs, segments
from dynctl.runtime.segments import Noted, Noting
from dynctl.runtime.shared_memory import SHARED_MEMORY, Segment, left, made_by, mapped_by, present, remove_unused
from dynctl.runtime.spawned import Spawned, start_ticks
from dynctl.store.run import SEGMENTS_FILE

Start = Callable[[Path], "subprocess.Popen[bytes]"]
MAPS = """
import mmap, sys
with open(sys.argv[1], "ab+") as file:
    file.truncate(4096)
    held = mmap.mmap(file.fileno(), 4096)
print("on", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name() -> Iterator[Path]:
    """A path in shared memory that is free."""
    path = Path(SHARED_MEMORY) / f"dynctl-test-{secrets.token_hex(6)}"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def start() -> Iterator[Start]:
    """A process that maps a file, which it makes if it is not there."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(path: Path) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-c", MAPS, str(path)]
        started.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True))
        assert started[-1].stdout
        assert started[-1].stdout.readline() == b"on\n"
        return started[-1]

    yield begin
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=10)


def made(*processes: subprocess.Popen[bytes], starts: Sequence[Spawned] = ()) -> set[Segment]:
    return made_by([psutil.Process(process.pid) for process in processes], starts)


@pytest.fixture(params=[3600, -3600], ids=["forward", "back"])
def jump(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Sets the wall clock, as this process sees it, by an hour."""
    real = time.time
    return lambda: monkeypatch.setattr(time, "time", lambda: real() + request.param)


def test_what_a_process_made_is_its_runs_and_goes_once_nobody_maps_it(name: Path, start: Start) -> None:
    one = start(name)
    found = made(one)
    assert [segment.path for segment in found] == [str(name)]
    other = start(name)
    kill(one)
    assert (remove_unused(found), left(found)) == ([], []), "another process maps it"
    kill(other)
    assert [segment.path for segment in left(found)] == [str(name)]
    assert remove_unused(found) == [str(name)]
    assert not name.exists()


def test_what_was_there_before_is_somebodys(name: Path, start: Start) -> None:
    """Weights that a user has put into memory are mapped by the engine that loads them."""
    name.write_bytes(b"weights")
    time.sleep(0.1)  # the kernel counts starts in ticks of 10 ms
    one = start(name)  # which changes it, too
    assert str(name) in mapped_by([one.pid])
    assert made(one) == set()


def test_a_clock_that_jumps_takes_nothing_of_anybodys_and_leaves_nothing(
    name: Path, start: Start, jump: Callable[[], None]
) -> None:
    weights = name.with_suffix(".weights")
    weights.write_bytes(b"weights")
    shared = tuple(present() or ())
    time.sleep(0.1)  # the kernel counts starts in ticks of 10 ms
    processes = [start(weights), start(name)]
    starts = [noted(process, shared) for process in processes]
    jump()
    try:
        assert [segment.path for segment in made(*processes, starts=starts)] == [str(name)]
    finally:
        weights.unlink()


def noted(process: subprocess.Popen[bytes], shared: tuple[int, ...]) -> Spawned:
    ticks = start_ticks(process.pid)
    assert ticks
    return Spawned(run_id="r", id="w", pid=process.pid, start_ticks=ticks, session=process.pid, shared=shared)


def test_what_is_in_a_directory_is_no_segment(name: Path, start: Start) -> None:
    name.mkdir()
    inner = name / "model.safetensors"
    try:
        assert made(start(inner)) == set()
    finally:
        inner.unlink()
        name.rmdir()


def test_a_semaphore_is_its_makers_though_it_was_linked_to_its_name() -> None:
    code = (
        "import multiprocessing as m, sys; s = m.get_context('spawn').Semaphore(); print(s._semlock.name, flush=True)"
    )
    argv = [sys.executable, "-c", f"{code}; sys.stdin.read()"]
    maker = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert maker.stdout
    path = Path(f"{SHARED_MEMORY}sem.{maker.stdout.readline().decode().strip().lstrip('/')}")
    tracker = psutil.Process(maker.pid).children()
    try:
        found = made(maker)
        assert [segment.path for segment in found] == [str(path)]
        assert left(found) == [], "its maker uses it"
        for process in tracker:  # which would remove it
            process.kill()
        kill(maker)
        assert remove_unused(found) == [str(path)]
    finally:
        kill(maker)
        path.unlink(missing_ok=True)


def test_a_name_that_is_anothers_now_is_left_alone(name: Path, start: Start) -> None:
    one = start(name)
    found = made(one)
    kill(one)
    other = name.with_suffix(".other")
    other.touch()
    other.rename(name)
    assert remove_unused(found) == []
    assert name.exists()


def test_notes_are_kept_by_run_and_process(tmp_path: Path) -> None:
    one, other = Segment(f"{SHARED_MEMORY}psm_1", 1, 2), Segment(f"{SHARED_MEMORY}psm_2", 1, 3)
    assert segments.note(tmp_path, [Noted("r", "decode-0", one), Noted("r", "prefill-0", other)])
    assert segments.note(tmp_path, [Noted("another", "decode-0", other)])
    with (tmp_path / SEGMENTS_FILE).open("ab") as file:
        file.write(b'{"run_id": "r", "id": "dec')
    assert segments.read(tmp_path, "r") == {one, other}
    assert segments.read(tmp_path, "r", "decode-0") == {one}
    assert segments.read(tmp_path / "gone", "r") == set()
    assert not segments.note(tmp_path / "gone", [Noted("r", "decode-0", one)])


def test_each_segment_is_noted_once(name: Path, start: Start, tmp_path: Path) -> None:
    one = start(name)
    noting = Noting(tmp_path, "r", {"decode-0": SimpleNamespace(state="loading", pid=one.pid)})
    noting.look({"decode-0": one.pid})
    noting.look({"decode-0": one.pid})
    assert segments.read(tmp_path, "r", "decode-0") == made(one)
    assert len((tmp_path / SEGMENTS_FILE).read_bytes().splitlines()) == 1


def test_who_is_looked_at() -> None:
    starts, settled = SimpleNamespace(state="loading", pid=1), SimpleNamespace(state="ready", pid=2)
    gone, restarted = SimpleNamespace(state="backing off", pid=None), SimpleNamespace(state="ready", pid=4)
    noting = Noting(Path(), "r", {"a": starts, "b": settled, "c": gone, "d": restarted})
    noting._settled |= {"a": 1, "b": 2, "d": 3}
    assert noting._due() == {"a": (1, True), "d": (4, False)}


def test_a_tree_is_a_process_and_its_descendants() -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); sys.stdin.read()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout
    child = int(parent.stdout.readline())
    try:
        assert procfs.trees({parent.pid, child, 2**30}) == {parent.pid: {parent.pid, child}, child: {child}}
        assert {parent.pid, child} <= procfs.trees({os.getpid()})[os.getpid()]
    finally:
        os.kill(child, 9)
        kill(parent)
