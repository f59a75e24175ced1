"""What operators do to a run that serves: nothing of it may be felt by its users."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator

from tests.integration.run_harness import Home, T, until

TWO_BY_TWO = {"roles": {"prefill": {"workers": 2}, "decode": {"workers": 2}}}


def row(status: T, process: str) -> T:
    """A process's row."""
    found: T = next(p for p in status["processes"] if p["id"] == process)
    return found


class Load:
    """A few clients that ask again and again, half of them for streams."""

    def __init__(self, home: Home, clients: int = 3) -> None:
        self._home, self._over = home, threading.Event()
        self.answers: list[tuple[int, str]] = []
        self._clients = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def _ask(self, number: int) -> None:
        turn = 0
        while not self._over.is_set():
            turn += 1
            prompt = f"client {number} asks {turn} " * 20
            if number % 2:
                answer = self._home.ask(prompt, max_tokens=4)
                self.answers.append((answer.status_code, answer.text))
            else:
                try:
                    lines = list(self._home.stream(prompt, max_tokens=4))
                    bad = [line for line in lines if '"error"' in line]
                    self.answers.append((200 if lines[-1] == "[DONE]" and not bad else 0, "".join(bad) or lines[-1]))
                except Exception as error:
                    self.answers.append((0, repr(error)))

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        until(lambda: len(self.answers) > 5, "the load runs")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def failed(self) -> list[tuple[int, str]]:
        """Answers that are none."""
        return [answer for answer in self.answers if answer[0] != 200]


@contextlib.contextmanager
def steady(home: Home) -> Iterator[Load]:
    with Load(home) as load:
        yield load


def test_a_rolling_restart_fails_no_request(home: Home) -> None:
    home.up(TWO_BY_TWO)
    before = {p["id"]: p["pid"] for p in home.status()["processes"]}
    with steady(home) as load:
        workers = [process for process in before if process != "frontend"]
        done = home.run("restart", home.name, *workers)
        sent = len(load.answers)
        until(lambda: len(load.answers) > sent + 5, "the load goes on")
    assert done.code == 0, done.err
    assert load.failed() == [], load.failed()[:5]
    status = home.status()
    assert status["state"] == "ready"
    after = {p["id"]: p["pid"] for p in status["processes"]}
    assert [process for process in before if before[process] == after[process]] == ["frontend"]
    assert "restart 4 of 4" in done.err
    assert not [e for e in home.events() if e.get("state") == "backing off"], "it counts for no restart"
    never = {"prefill": 2, "decode": 2}
    states = dict.fromkeys(before, "ready")
    ready_at = next(e["seq"] for e in home.events() if e.get("state") == "ready" and e["kind"] == "run.state")
    for event in home.events():
        if event["kind"] == "process.state" and event["seq"] > ready_at:
            states[event["process"]] = event["state"]
            for role in never:
                serving = [p for p, state in states.items() if p.startswith(role) and state == "ready"]
                never[role] = min(never[role], len(serving))
    assert never == {"prefill": 1, "decode": 1}, "one at a time, and never none"


def test_a_whole_run_is_restarted_the_frontend_last(home: Home) -> None:
    home.up()
    before = {p["id"]: p["pid"] for p in home.status()["processes"]}
    done = home.run("restart", "--json")
    assert done.code == 0, done.err
    after = {p["id"]: p["pid"] for p in home.status()["processes"]}
    assert all(before[process] != after[process] for process in before)
    order = [e["process"] for e in map(json.loads, done.out.splitlines()) if e["kind"] == "operation"]
    assert order == ["decode-0", "prefill-0", "frontend"]
    assert home.ask().status_code == 200
    unknown = home.run("restart", home.name, "decode-7")
    assert (unknown.code, "decode-0" in unknown.error()["why"][0]) == (2, True)


def test_a_restart_that_fails_says_so_and_stops_there(home: Home) -> None:
    home.up({"roles": {"decode": {"workers": 2, "restart": {"max": 0}}}})
    home.control(decode={"die_at_phase": "config", "die_message": "RuntimeError: no hope"})
    done = home.run("restart", home.name)
    assert done.code == 1
    assert "decode-0 did not come back" in done.error()["error"][0]
    status = home.status()
    assert (row(status, "decode-0")["state"], row(status, "decode-1")["state"]) == ("failed", "ready")
    refused = home.run("restart", home.name, "decode-1")
    assert (refused.code, "no other decode worker is ready" in refused.error()["error"][0]) == (1, True)
    assert home.ask().status_code == 200


def test_a_drained_worker_gets_nothing_until_it_is_taken_in_again(home: Home) -> None:
    home.up({"roles": {"decode": {"workers": 2}}})
    home.control(decode={"token_delay_ms": 40})
    pid = row(home.status(), "decode-0")["pid"]
    with steady(home) as load:
        done = home.run("drain", home.name, "decode-0")
        assert done.code == 0, done.err
        status = home.status()
        assert (row(status, "decode-0")["state"], row(status, "decode-0")["pid"]) == ("draining", pid)
        assert "decode-0 is draining" in status["reason"]
        sent, served = len(load.answers), len(home.requests("decode"))
        until(lambda: len(load.answers) > sent + 5, "decode-1 serves alone")
        port = row(status, "decode-1")["ports"]["http"]
        assert {r["port"] for r in home.requests("decode")[served:] if "port" in r} <= {port}
        assert home.run("drain", home.name, "decode-0", "--undo").code == 0
        assert home.status()["state"] == "ready"
    assert load.failed() == []
    assert home.run("drain", home.name, "frontend").code == 2
    assert home.run("drain", home.name, "decode-0", "--undo").code == 5


def test_a_worker_that_dies_while_drained_stays_down(home: Home) -> None:
    home.up({"roles": {"decode": {"workers": 2}}})
    assert home.run("drain", home.name, "decode-1").code == 0
    os.kill(row(home.status(), "decode-1")["pid"], signal.SIGKILL)
    home.await_status(lambda s: row(s, "decode-1")["state"] == "stopped", "it is down")
    assert home.ask().status_code == 200
    done = home.run("drain", home.name, "decode-1", "--undo")
    assert done.code == 0, done.err
    assert home.status()["state"] == "ready"


def test_requests_that_take_longer_than_the_drain_are_told(home: Home) -> None:
    home.up({"roles": {"decode": {"workers": 2}}})
    home.control(decode={"token_delay_ms": 300})
    streams = [home.stream(f"a long answer {number}", max_tokens=100) for number in range(2)]
    for stream in streams:
        next(stream)
    done = home.run("drain", home.name, "decode-0", "--timeout", "1")
    assert (done.code, "1 request in flight" in done.error()["error"][0]) == (1, True)
    home.control()
    assert [list(stream)[-1] for stream in streams] == ["[DONE]", "[DONE]"]
