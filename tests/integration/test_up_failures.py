"""Starts that fail: the culprit's last lines, the likely cause, the exit code, and nothing left."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from tests.integration.run_harness import Home, Result, until

DEATHS = [
    ("OSError: [Errno 98] Address already in use", "a port it needs is in use"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "out of memory"),
    (
        "OSError: /m is not a local folder and is not a valid model identifier",
        "the model was not found",
    ),
    ("RuntimeError: NIXL compatibility hash mismatch. Local: 1f. Remote: 2e.", "compatibility hash mismatch"),
    ("RuntimeError: NIXL is not available", "no usable NIXL"),
]


def failed(home: Home, done: Result, code: int) -> dict[str, list[str]]:
    """The error's lines; the run is over, said to be failed, and has left nothing alive."""
    assert done.code == code, f"{done.err}\n{home.logs()}"
    home.nothing_left()
    assert home.states()[-2:] == ["stopping", "failed"]
    after = home.run("status", home.name, "--json")
    assert (after.code, after.json()["state"]) == (5, "failed")
    found = done.error()
    assert len(found["error"]) == 1, done.err
    return found


@pytest.mark.parametrize(("message", "cause"), DEATHS)
def test_a_worker_that_dies_is_explained(home: Home, message: str, cause: str) -> None:
    home.control(decode={"die_at_phase": "kv_cache", "die_message": message, "exit_code": 7})
    error = failed(home, home.run("up", "-d", home.topology()), 1)
    assert "decode-0 died while preparing engine (exit code 7)" in error["error"][0]
    assert cause in " ".join(error["why"])
    assert error["fix"]
    assert error["|"][-1] == message
    assert any("Loading weights took" in line for line in error["|"])


def test_a_worker_that_dies_without_a_word(home: Home) -> None:
    home.control(prefill={"die_at_phase": "config", "exit_code": 3})
    error = failed(home, home.run("up", "-d", home.topology()), 1)
    assert "prefill-0 died while starting (exit code 3)" in error["error"][0]
    assert "dynctl logs prefill-0" in error["fix"][0]


def test_a_foreground_up_fails_alike(home: Home) -> None:
    home.control(prefill={"die_at_phase": "weights", "die_message": DEATHS[1][0]})
    failed(home, home.run("up", home.topology()), 1)


def test_a_stall_is_a_timeout(home: Home) -> None:
    home.control(decode={"hang_at_phase": "kv_cache"})
    error = failed(home, home.run("up", "-d", home.topology({"ready": {"stall": "2s"}})), 124)
    assert "decode-0 made no progress for 2 s" in error["error"][0]
    assert any("Loading weights took" in line for line in error["|"])


def test_a_start_that_takes_too_long(home: Home) -> None:
    home.control(prefill={"start_delay_s": 600})
    error = failed(home, home.run("up", "-d", home.topology({"ready": {"timeout": "4s"}})), 124)
    assert "not ready after 4 s" in error["error"][0]
    assert any("prefill-0" in line for line in error["why"])


def test_a_health_that_never_comes(home: Home) -> None:
    home.control(decode={"health_status": 503})
    failed(home, home.run("up", "-d", home.topology({"ready": {"timeout": "6s"}})), 124)


def test_a_side_channel_port_taken_by_somebody_hangs_no_start(home: Home) -> None:
    """The port is free when the plan is made and taken when the workers are to be spawned."""
    command = home.python(
        "-c",
        "import socket, sys; from dynctl.cli import app, up\n"
        "from dynctl.runtime.launch import launch\n"
        "def steal(plan, **options):\n"
        "    global thief\n"
        "    thief = socket.create_server(('127.0.0.1', plan.process('decode-0').ports['side_channel']))\n"
        "    return launch(plan, **options)\n"
        "up.launch = steal\n"
        "sys.exit(app.run(['up', '-d', sys.argv[1]]))",
        str(home.topology()),
    )
    error = failed(home, command.wait(), 3)
    assert "was taken after the plan was made" in error["error"][0]
    assert f"pid {command.process.pid}" in error["why"][0]
    assert "decode-0" in error["at"][0]


def test_a_process_that_ignores_sigterm_is_killed(home: Home) -> None:
    home.control(prefill={"term_delay_s": 600}, decode={"die_at_phase": "serving", "die_message": "gone"})
    failed(home, home.run("up", "-d", home.topology()), 1)


def test_a_failed_run_can_be_started_again(home: Home) -> None:
    home.control(decode={"die_at_phase": "weights"})
    assert home.run("up", "-d", home.topology()).code == 1
    home.control()
    home.up()
    assert home.ask().status_code == 200


def test_a_frontend_port_taken_at_spawn_is_told_by_its_holder(home: Home) -> None:
    with socket.create_server(("127.0.0.1", home.port)):
        done = home.run("up", "-d", home.topology())
    assert done.code == 2
    error = done.error()
    assert f"port {home.port} is in use" in error["error"][0]
    assert "held by pid" in error["why"][0]
    assert "frontend.port" in error["at"][0]


def test_a_fault_of_the_supervisor_itself_leaves_nothing(home: Home) -> None:
    home.hook("_supervise", "from dynctl.runtime import proving\nproving.meets = lambda *_: 1 / 0")
    error = failed(home, home.run("up", "-d", home.topology()), 1)
    assert "the supervisor failed: ZeroDivisionError" in error["error"][0]
    assert "Traceback" in home.run("logs", home.name, "supervisor").out


def test_a_supervisor_that_hangs_in_its_start_is_given_up(home: Home) -> None:
    home.hook("_supervise", "import time; time.sleep(600)")
    impatient = "import dynctl.cli.watch; dynctl.cli.watch.FIRST_WORD_S = 0.5"
    home.hook("--verbose", impatient)
    done = home.run("up", "-d", home.topology(), "--no-preflight", "--verbose")
    assert done.code == 124, done.err
    assert "has not said a word: killed" in done.err
    home.nothing_left()


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for that signal (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_who_wants_to_leave_is_not_held_up_by_a_supervisor_that_hangs(home: Home) -> None:
    home.hook("_supervise", "import time; time.sleep(600)")
    up = home.start("up", home.topology(), "--no-preflight")
    until(lambda: catches(up.process.pid, signal.SIGTERM), "the command watches")
    up.signal(signal.SIGINT)
    assert up.wait().code == 130
    home.nothing_left()
