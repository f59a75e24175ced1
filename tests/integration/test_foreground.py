"""Foreground `up`: what it prints off a terminal, and what becomes of the run when its viewer ends."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import threading

import pytest

from tests.integration.run_harness import Command, Home, until

STREAMED_TOKENS = 20
STAMPED = re.compile(r"\d\d:\d\d:\d\d \S+ +\S.*")


def ready(home: Home, *options: str) -> Command:
    """A foreground `up` whose run is ready."""
    command = home.start("up", home.topology(), *options)
    command.says(f"{home.name} is ready")
    return command


class Stream:
    """A streamed request under way in a thread."""

    def __init__(self, home: Home) -> None:
        self.lines: list[str] = []
        self.failure: Exception | None = None
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(home,), daemon=True)
        self._thread.start()
        assert self._begun.wait(60), self.failure

    def end(self) -> list[str]:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.lines

    def _read(self, home: Home) -> None:
        try:
            for line in home.stream(max_tokens=STREAMED_TOKENS):
                self.lines.append(line)
                self._begun.set()
        except Exception as error:
            self.failure = error
        finally:
            self._begun.set()


def test_one_stamped_line_for_each_transition(home: Home) -> None:
    command = ready(home)
    command.signal(signal.SIGINT)
    ended = command.wait()
    assert ended.code == 130
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert all(STAMPED.fullmatch(line) for line in lines), ended.err
    assert "\x1b" not in ended.err
    events = home.events()
    assert len(lines) == len(events)
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    for word in ("started, pid", "loading weights", "healthy", "model listed", "KV bytes", "stopping", "ended"):
        assert word in ended.err


def test_json_lines_are_the_event_log(home: Home) -> None:
    command = ready(home, "--json")
    command.signal(signal.SIGTERM)
    ended = command.wait()
    assert ended.code == 143
    assert [json.loads(line) for line in ended.out.splitlines()] == home.events()
    assert ended.err == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_drains(home: Home, number: signal.Signals, code: int) -> None:
    home.control(decode={"token_delay_ms": 100})
    command = ready(home)
    stream = Stream(home)
    command.signal(number)
    lines = stream.end()
    assert stream.failure is None
    assert lines[-1] == "[DONE]"
    assert len(lines) == STREAMED_TOKENS + 1
    assert command.wait().code == code
    home.nothing_left()


def test_a_second_signal_kills(home: Home) -> None:
    command = ready(home)
    home.control(decode={"token_delay_ms": 60_000})
    stream = Stream(home)
    command.signal(signal.SIGINT)
    command.says("stopping")
    command.signal(signal.SIGINT)
    assert command.wait(30).code == 130
    home.nothing_left()
    assert stream.end()[-1] != "[DONE]"


def test_a_signal_before_ready_ends_the_start(home: Home) -> None:
    home.control(decode={"hang_at_phase": "kv_cache"})
    command = home.start("up", "-d", home.topology())
    command.says("decode-0     loading weights")
    command.signal(signal.SIGINT)
    assert command.wait().code == 130
    home.nothing_left()


def test_a_signal_while_planning_starts_nothing(home: Home) -> None:
    blocked = home.python(
        "-c",
        "import time; from dynctl.store.run import planning_lock\n"
        "with planning_lock(): print('held', flush=True); time.sleep(600)",
    )
    blocked.says("held")
    command = home.start("up", "-d", home.topology())
    # it waits for the lock with its files open
    lock = next((home.dir / "tmp").rglob("planning.lock"))
    until(
        lambda: any(
            os.path.samefile(f"/proc/{command.process.pid}/fd/{fd}", lock)
            for fd in os.listdir(f"/proc/{command.process.pid}/fd")
            if os.path.exists(f"/proc/{command.process.pid}/fd/{fd}")
        ),
        "up waits for the planning lock",
    )
    command.signal(signal.SIGINT)
    ended = command.wait()
    blocked.process.kill()
    blocked.process.wait()
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert home.run("status", home.name).code == 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_losing_the_client_before_ready_ends_the_run(home: Home, number: signal.Signals) -> None:
    home.control(decode={"hang_at_phase": "kv_cache"})
    command = home.start("up", home.topology())
    command.says("decode-0     loading weights")
    command.signal(number)
    assert command.process.wait() == -number
    home.nothing_left()
    assert home.states()[-1] == "stopped"


def test_losing_the_client_at_the_moment_of_launch_ends_the_run(home: Home) -> None:
    home.control(decode={"hang_at_phase": "kv_cache"})
    command = home.python(
        "-c",
        "import os, signal, sys; from dynctl.cli import app, watch\n"
        "watch.Watch.__init__ = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(app.run(['up', sys.argv[1]]))",
        str(home.topology()),
    )
    assert command.process.wait() == -signal.SIGKILL, command.err
    home.nothing_left()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_ready_run_survives_its_client(home: Home, number: signal.Signals) -> None:
    command = ready(home)
    command.signal(number)
    assert command.process.wait() == -number
    assert home.ask().status_code == 200
    assert home.status()["state"] == "ready"
    assert home.run("down", home.name).code == 0
    home.nothing_left()


def test_a_ready_run_survives_its_terminal(home: Home) -> None:
    master, slave = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    command = home.start(
        "up", home.topology(), env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=_controlling_terminal,
    )  # fmt: skip
    os.close(slave)
    shown = bytearray()
    drawing = threading.Thread(target=_drain, args=(master, shown), daemon=True)
    drawing.start()
    until(lambda: home.run("status", home.name).code == 0 and home.status()["state"] == "ready", "the run is ready")
    until(lambda: b"prefill-0" in shown and b"shm" in shown, "the live view shows the run")
    os.close(master)
    command.process.wait(60)
    drawing.join(60)
    assert home.ask().status_code == 200
    assert home.status()["state"] == "ready"


def _controlling_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _drain(descriptor: int, into: bytearray) -> None:
    try:
        while data := os.read(descriptor, 1 << 16):
            into += data
    except OSError:
        return
