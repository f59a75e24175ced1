"""What befalls a supervisor from outside while users ask: a lost login, clocks that jump, no file descriptors left."""

from __future__ import annotations

import os
import resource
import signal
import time

import psutil

from tests.integration.run_harness import Home, until
from tests.integration.test_operations import Load, row, steady

DAY_S = 86_400
JUMPS = """
import os, pathlib, time
real, by = time.time, pathlib.Path(os.environ["JUMPED_BY"])
time.time = lambda: real() + float(by.read_text() or 0)
"""


def goes_on(load: Load) -> None:
    """It is asked, and answers, for a few canaries more."""
    seen, until_s = len(load.answers), time.monotonic() + 5.0
    until(lambda: len(load.answers) > seen + 20 and time.monotonic() > until_s, "the load goes on")


def test_a_run_outlives_its_login_clocks_that_jump_and_a_lack_of_descriptors(home: Home) -> None:
    jumped = home.dir / "jumped"
    jumped.write_text("0")
    home.env["JUMPED_BY"] = str(jumped)
    for command in ("_supervise", "frontend"):
        home.hook(command, JUMPS)
    # with 500 ms a busy machine takes a worker out by itself: "/health: no complete answer within 0.375 s"
    home.up({"health": {"canary": "2s", "stall": "10s"}})
    before = home.status()
    supervisor = psutil.Process(before["supervisor"]["pid"])
    assert (supervisor.terminal(), supervisor.pid) == (None, os.getsid(supervisor.pid))
    with steady(home) as load:
        supervisor.send_signal(signal.SIGHUP)
        goes_on(load)
        for jump_s in (DAY_S, -DAY_S):
            partial = home.dir / "jumped.partial"
            partial.write_text(str(jump_s))
            partial.rename(jumped)
            goes_on(load)
        limits = supervisor.rlimit(resource.RLIMIT_NOFILE)
        supervisor.rlimit(resource.RLIMIT_NOFILE, (supervisor.num_fds(), limits[1]))
        goes_on(load)
        supervisor.rlimit(resource.RLIMIT_NOFILE, limits)
        goes_on(load)
        after = home.await_status(lambda s: s["state"] == "ready", "it is ready")
        assert {p["id"]: p["pid"] for p in after["processes"]} == {p["id"]: p["pid"] for p in before["processes"]}
        assert home.states() == ["starting", "ready"]
        # by that clock it was yesterday when it became ready
        psutil.Process(row(after, "prefill-0")["pid"]).kill()
        home.await_status(lambda s: s["state"] == "ready" and row(s, "prefill-0")["restarts"] == 1, "it is back")
        goes_on(load)
    assert load.failed() == [], load.failed()[:5]
    told = home.events()
    assert [event["seq"] for event in told] == sorted(event["seq"] for event in told)
    span_s = max(event["at"] for event in told) - min(event["at"] for event in told)
    assert span_s > DAY_S / 2, "the clock has jumped indeed"
    assert home.run("down", home.name).code == 0
    home.nothing_left()
