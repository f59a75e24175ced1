"""An engine that pinned itself is put back onto the cores it was planned for."""

from __future__ import annotations

import os
import subprocess

import psutil

from dynctl.runtime.affinity import hold_to


def test_every_thread_is_moved_back() -> None:
    """Pinned to one core, then held to all that this process may use."""
    everywhere = os.sched_getaffinity(0)
    child = subprocess.Popen(["sleep", "60"])
    try:
        os.sched_setaffinity(child.pid, {max(everywhere)})
        hold_to(everywhere, [psutil.Process(child.pid)])
        assert os.sched_getaffinity(child.pid) == everywhere
    finally:
        child.kill()
        child.wait()


def test_a_process_that_is_gone_is_passed_over() -> None:
    """Between the look and the call a worker may end."""
    child = subprocess.Popen(["true"])
    process = psutil.Process(child.pid)
    child.wait()
    hold_to(os.sched_getaffinity(0), [process])
