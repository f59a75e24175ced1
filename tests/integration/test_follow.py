"""Looking on from another terminal: it ends with the run, and Ctrl-C only detaches."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.integration.run_harness import Home, until


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


ROTATE_SOON = """
from dynctl.runtime import rotating
from dynctl.store import rotation
rotation.LIMIT_BYTES, rotating.LOOK_S = 1000, 0.1
"""


def test_logs_are_rotated_and_followed_through_it(home: Home) -> None:
    home.hook("_supervise", ROTATE_SOON)
    home.up()
    logs = home.start("logs", home.name, "decode-0", "-f", "-n", "1")
    until(lambda: logs.out, "the log is being followed")
    path = home.run_dir / "logs" / "decode-0.log"
    lines = [f"the engine says {number} {'x' * 90}" for number in range(60)]
    with path.open("ab", buffering=0) as engine:  # as the engine holds it
        for at in range(0, len(lines), 20):
            inodes = _inodes(path)
            engine.write("".join(f"{line}\n" for line in lines[at : at + 20]).encode())
            until(lambda: _inodes(path) != inodes, "the log is rotated")  # noqa: B023
        engine.write(b"the last line\n")
    logs.says("the last line")
    shown = [line for line in logs.out.splitlines() if line.startswith("the engine says")]
    assert shown == lines
    assert len(_inodes(path)) <= 3
    assert home.ask().status_code == 200


def _inodes(path: Path) -> list[int]:
    """The rotated logs, the newest first."""
    return [older.stat().st_ino for older in sorted(path.parent.glob(f"{path.name}.*"))]


def test_events_of_one_process_and_since(home: Home) -> None:
    home.up()
    of_one = home.run("events", home.name, "--process", "decode-0", "--json").out.splitlines()
    assert [json.loads(line) for line in of_one] == [e for e in home.events() if e.get("process") == "decode-0"]
    assert home.run("events", home.name, "--since", "1h", "--json").out.splitlines()[0].startswith('{"seq":1,')
    assert home.run("events", home.name, "--since", "1ms").out == ""
    unknown = home.run("events", home.name, "--process", "decode-7")
    assert (unknown.code, "decode-0" in unknown.error()["why"][0]) == (2, True)
    assert home.run("events", home.name, "--since", "soon").code == 2


def test_status_is_watched_to_the_end(home: Home) -> None:
    home.up()
    lines = home.start("status", home.name, "--watch")
    documents = home.start("status", home.name, "--watch", "--json")
    lines.says(f"{home.name} is ready")
    documents.says('"state":"ready"')
    assert home.run("down", home.name).code == 0
    for command in (lines, documents):
        assert command.wait().code == 0
    states = [json.loads(line)["state"] for line in documents.out.splitlines()]
    assert (states[0], states[-1]) == ("ready", "stopped")
    told = lines.out.splitlines()
    assert f"{home.name} is stopped" in told[-1]
    assert len(told) < 12, "a line for each change, not for each look"
    assert home.run("status", home.name, "--watch").code == 5


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
