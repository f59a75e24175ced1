"""Which processes are a run's, and how they are ended. Real processes, all of them short-lived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator

import psutil
import pytest

from dynctl.runtime.ownership import alive, describe, end_all, processes_of, signal_all, tree

Start = Callable[..., "subprocess.Popen[bytes]"]
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"


@pytest.fixture
def run_id() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def start(run_id: str) -> Iterator[Start]:
    """Starts processes marked as the run's; all of them are ended and collected afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*argv: str, process: str = "decode-0", run: str = run_id) -> subprocess.Popen[bytes]:
        env = {"PATH": os.environ["PATH"], "DYNCTL_RUN_ID": run, "DYNCTL_PROCESS": process}
        one = subprocess.Popen(argv or ("sleep", "60"), env=env, stdout=subprocess.PIPE, start_new_session=True)
        started.append(one)
        return one

    yield begin
    for process in started:
        for member in tree(process.pid):
            member.kill()
        process.kill()
        process.wait(10)
        if process.stdout:
            process.stdout.close()


def pids(processes: list[psutil.Process]) -> set[int]:
    return {process.pid for process in processes}


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def test_marked_processes_are_found_by_run_and_by_process(start: Start, run_id: str) -> None:
    one, other = start(process="prefill-0"), start(process="decode-0")
    foreign = start(run=uuid.uuid4().hex)
    until(lambda: len(processes_of(run_id)) == 2)
    assert pids(processes_of(run_id)) == {one.pid, other.pid}
    assert pids(processes_of(run_id, "decode-0")) == {other.pid}
    assert foreign.pid not in pids(processes_of(run_id))
    assert processes_of(run_id, "decode-1") == []


def test_a_mark_must_match_whole(start: Start, run_id: str) -> None:
    start(run=f"{run_id}0")
    start(process="decode-00")
    until(lambda: len(processes_of(run_id)) == 1)
    assert processes_of(run_id, "decode-0") == []


def test_children_whose_parent_died_are_found(start: Start, run_id: str) -> None:
    parent = start("sh", "-c", "sleep 60 & echo $!; exec sleep 0")
    assert parent.stdout
    orphan = int(parent.stdout.readline())
    parent.wait(10)
    until(lambda: pids(processes_of(run_id)) == {orphan})  # a moment passes between its fork and its exec
    assert end_all(lambda: processes_of(run_id), grace_s=5) == []
    until(lambda: not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == psutil.STATUS_ZOMBIE)


def test_the_dead_that_were_not_collected_do_not_count(start: Start, run_id: str) -> None:
    process = start("true")
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert processes_of(run_id) == []
    assert alive([psutil.Process(process.pid)]) == []


def test_a_tree_is_the_process_and_its_descendants(start: Start) -> None:
    parent = start("sh", "-c", "sleep 60 & sleep 60 & wait")
    until(lambda: len(tree(parent.pid)) == 3)
    assert tree(parent.pid)[0].pid == parent.pid
    parent.kill()
    parent.wait(10)
    assert tree(parent.pid) == []


def test_ending_asks_first(start: Start, run_id: str) -> None:
    process = start()
    until(lambda: len(processes_of(run_id)) == 1)
    assert end_all(lambda: processes_of(run_id), grace_s=10) == []
    assert process.wait(10) == -signal.SIGTERM


def test_ending_kills_what_does_not_go(start: Start, run_id: str) -> None:
    process = start(sys.executable, "-c", STUBBORN)
    assert process.stdout
    assert process.stdout.readline() == b"on\n"
    assert end_all(lambda: processes_of(run_id), grace_s=0.2) == []
    assert process.wait(10) == -signal.SIGKILL


def test_no_grace_kills_at_once(start: Start, run_id: str) -> None:
    process = start(sys.executable, "-c", STUBBORN)
    assert process.stdout
    process.stdout.readline()
    assert end_all(lambda: processes_of(run_id), grace_s=0) == []
    assert process.wait(10) == -signal.SIGKILL


def test_what_can_not_be_ended_is_returned(start: Start, run_id: str) -> None:
    process = start()
    until(lambda: len(processes_of(run_id)) == 1)

    class Immortal(psutil.Process):
        def send_signal(self, sig: int) -> None:
            pass

    survivors = end_all(lambda: [Immortal(process.pid)], grace_s=0, kill_s=0.05)
    assert pids(survivors) == {process.pid}


def test_signalling_the_dead_is_no_error(start: Start) -> None:
    process = start("true")
    member = psutil.Process(process.pid)
    process.wait(10)
    signal_all([member], signal.SIGTERM)
    assert alive([member]) == []
    assert describe(member) == f"pid {process.pid}"


def test_descriptions_name_pid_and_program(start: Start, run_id: str) -> None:
    process = start()
    until(lambda: len(processes_of(run_id)) == 1)
    assert describe(psutil.Process(process.pid)) == f"pid {process.pid} (sleep)"
