"""Looking on from another terminal: it ends with the run, and Ctrl-C only detaches."""

from __future__ import annotations

import json
import os
import signal

from tests.integration.run_harness import Home


def test_events_are_followed_to_the_end(home: Home) -> None:
    home.up()
    following = home.start("events", home.name, "--follow", "--json")
    following.says("is ready")
    assert home.run("down", home.name).code == 0
    ended = following.wait()
    assert ended.code == 0
    assert [json.loads(line) for line in ended.out.splitlines()] == home.events()


def test_ctrl_c_detaches_from_logs_and_events(home: Home) -> None:
    home.up()
    logs = home.start("logs", home.name, "frontend", "-f")
    events = home.start("events", home.name, "-f")
    logs.says("frontend listening")
    events.says("is ready")
    for command in (logs, events):
        command.signal(signal.SIGINT)
        ended = command.wait()
        assert ended.code == 130
        assert ended.err.strip() == ""
    assert home.ask().status_code == 200


def test_a_log_is_followed_over_a_restart(home: Home) -> None:
    home.up({"roles": {"prefill": {"restart": {"backoff": "100ms"}}}})
    logs = home.start("logs", home.name, "prefill-0", "-f", "-n", "0")
    before = (home.run_dir / "logs" / "prefill-0.log").read_text().count("Loading weights took")
    pid = next(p["pid"] for p in home.status()["processes"] if p["id"] == "prefill-0")
    os.kill(pid, signal.SIGKILL)
    logs.says("Loading weights took")
    assert before == 1


def test_a_viewer_that_loses_the_supervisor_says_so(home: Home) -> None:
    watching = home.start("up", home.topology())
    watching.says(f"{home.name} is ready")
    supervisor = home.status()["supervisor"]["pid"]
    os.kill(supervisor, signal.SIGKILL)
    ended = watching.wait()
    assert ended.code == 1
    error = ended.error()
    assert "ended without a word" in error["error"][0]
    assert "keep serving" in error["why"][0]
    assert home.name in error["fix"][0]
    assert home.ask().status_code == 200
