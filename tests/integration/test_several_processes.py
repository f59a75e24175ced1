"""A run whose frontend is several processes."""

from __future__ import annotations

import os
import signal

import httpx
import psutil

from tests.integration.run_harness import Home, T, until


def row(home: Home) -> T:
    found: T = next(process for process in home.status()["processes"] if process["id"] == "frontend")
    return found


def siblings(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children()


def asked(home: Home) -> None:
    for number in range(8):
        assert home.ask(f"question {number}").status_code == 200


def test_a_run_with_two_processes_of_the_frontend_from_up_to_down(home: Home) -> None:
    home.up({"frontend": {"workers": 2, "admission": {"running": 4}}})
    asked(home)
    text = httpx.get(f"{home.url}/metrics", trust_env=False).text
    assert text.count("# TYPE dynctl_up gauge") == 1
    first = row(home)["pid"]
    (other,) = until(lambda: siblings(first), "the other process runs")
    other.kill()
    until(lambda: [one for one in siblings(first) if one.pid != other.pid], "it is started again")
    asked(home)
    assert row(home)["restarts"] == 0
    (other,) = siblings(first)
    os.kill(first, signal.SIGKILL)
    until(lambda: not other.is_running(), "it ends with the first")
    home.await_status(
        lambda status: status["state"] == "ready" and row(home)["pid"] not in (None, first), "the frontend is back"
    )
    asked(home)
    until(lambda: home.status()["frontend"]["in_flight"] == 0, "nothing is under way")
    done = home.run("down", home.name)
    assert done.code == 0, done.err
    home.nothing_left()
