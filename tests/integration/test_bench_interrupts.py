"""Ctrl-C where bench is at its end: a second one, and one while what it started is ended."""

from __future__ import annotations

import json
import signal

from tests.integration.command import Command
from tests.integration.run_harness import Home, until

LOAD = ("--isl", "40", "--osl", "6", "--json", "-o", "out")


def _ending(home: Home, command: Command) -> bool:
    """Whether the run is being ended, and bench waits for that."""
    return command.process.poll() is None and any("down" in process.cmdline() for process in home.processes())


def test_ctrl_c_while_what_was_measured_is_ended(home: Home) -> None:
    """The result is whole, and what bench started is gone all the same."""
    home.control(term_delay_s=2)
    command = home.start("bench", home.topology(), *LOAD, "--requests", "6")
    until(lambda: _ending(home, command), "the layout is taken down", 120)
    command.signal(signal.SIGINT)
    done = command.wait()
    assert done.code == 130, done.err
    document = done.json()
    assert document["runs"][0]["requests"] == 6
    assert json.loads((home.dir / "work" / "out" / "bench.json").read_text())["partial"] == document["partial"]
    home.nothing_left()


def test_a_second_ctrl_c_ends_bench_at_once_and_what_it_started_ends_without_it(home: Home) -> None:
    """Nobody waits for `down`, which goes on."""
    home.control(token_delay_ms=50, term_delay_s=2)
    command = home.start("bench", home.topology(), *LOAD, "--requests", "5000")
    command.says("round 1/1")
    command.signal(signal.SIGINT)
    until(lambda: _ending(home, command), "the layout is taken down")
    command.signal(signal.SIGINT)
    done = command.wait()
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    until(lambda: not home.processes(), "what it started has ended", 60)
    home.nothing_left()
