"""Ended orphans are collected, children that somebody waits for are not, at no cost that grows with the host."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dynctl.runtime import reaper

PARENT = "import subprocess; print(subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL).pid, flush=True)"


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    reaper.adopt_orphans()
    yield
    ctypes.CDLL(None).prctl(reaper.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def orphan() -> int:
    """The pid of a process whose parent has ended, so that it is this one's child."""
    return int(subprocess.run([sys.executable, "-c", PARENT], check=True, stdout=subprocess.PIPE).stdout)


def zombie(pid: int) -> int:
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return pid


@pytest.mark.parametrize("listed", [True, False])
def test_ended_orphans_are_collected_and_managed_children_are_left(
    listed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not listed:  # a kernel without lists of children
        monkeypatch.setattr(reaper, "TASKS", tmp_path / "none")
    ended, alive, mine = zombie(orphan()), orphan(), subprocess.Popen(["sleep", "60"])
    try:
        zombie(mine.pid)
        reaper.reap_orphans({mine.pid})
        assert not psutil.pid_exists(ended)
        assert psutil.Process(alive).status() != psutil.STATUS_ZOMBIE
        assert mine.wait(10) == -signal.SIGKILL
    finally:
        os.kill(alive, signal.SIGKILL)
        os.waitpid(alive, 0)


def test_it_does_not_look_at_every_process_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = zombie(orphan())
    monkeypatch.setattr(psutil, "Process", None)
    reaper.reap_orphans(set())
    with pytest.raises(ChildProcessError):
        os.waitpid(ended, os.WNOHANG)
