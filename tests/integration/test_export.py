"""What `dynctl export` writes, run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from tests.integration.command import Command
from tests.integration.run_harness import Home


def script(home: Home, *arguments: str | Path, **changes: object) -> Command:
    """Writes the script of the usual topology and starts it."""
    file = home.dir / "work/run.sh"
    done = home.run("export", "bash", home.topology(dict(changes)), "-o", file, *arguments)
    assert done.code == 0, done.err
    assert os.access(file, os.X_OK)
    # a shell that was started with SIGINT ignored, as in the background, can't trap it
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    home.commands.append(Command([str(file)], home.env, home.dir / "work", preexec_fn=heed))
    return home.commands[-1]


def test_the_script_starts_the_planned_processes_serves_and_ctrl_c_leaves_nothing(home: Home) -> None:
    plan = home.run("plan", home.topology(), "--json").json()
    running = script(home)
    running.says("serving fake at")
    answer = home.ask()
    assert answer.status_code == 200, answer.text
    assert len(home.requests("prefill")) == len(home.requests("decode")) == 1
    started = [process.cmdline() for process in home.processes()]
    assert all(worker["argv"] in started for worker in plan["processes"] if worker["role"] != "frontend")
    running.process.send_signal(signal.SIGINT)
    done = running.wait()
    assert done.code == 130, done.err
    home.nothing_left()
    assert not list((home.dir / "tmp").glob("tmp.*"))  # its directory for sockets


def test_a_dead_worker_ends_the_script_with_its_log(home: Home) -> None:
    running = script(home)
    running.says("serving fake at")
    (decode,) = (p for p in home.processes() if "kv_consumer" in " ".join(p.cmdline()))
    psutil.Process(decode.pid).kill()
    done = running.wait()
    assert done.code == 1
    assert "decode-0 has ended; the end of its log:" in done.err
    home.nothing_left()


def test_a_worker_that_can_not_start_is_told_and_the_others_are_ended(home: Home) -> None:
    home.control(decode={"die_at_phase": "weights"})
    done = script(home).wait()
    assert done.code == 1
    assert "decode-0 has ended" in done.err
    home.nothing_left()


def test_a_secret_is_asked_for_and_written_nowhere(home: Home) -> None:
    secret = "hf_aVeryLongAndSecretToken"
    roles = {"prefill": {"env": {"HF_TOKEN": secret}}}
    done = script(home, roles=roles).wait()
    assert done.code == 1
    assert "HF_TOKEN: is a secret" in done.err
    assert secret not in (home.dir / "work/run.sh").read_text()
    home.nothing_left()
