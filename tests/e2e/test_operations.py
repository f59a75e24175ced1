"""What operators do to real workers under streams, and what becomes of them without a supervisor."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from tests.e2e.deployment import Deployment
from tests.e2e.site import PROMPTS, START_S, Answer, complete
from tests.integration.command import has_ended, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

CLIENTS = 2
PAUSE_S = 1.0  # engines start beside them, on the same few cores
LONG_TOKENS = 1500
LONG: dict[str, Any] = {"model": "tiny", "prompt": "A long tale", "max_tokens": LONG_TOKENS, "ignore_eos": True}


@pytest.fixture(scope="module")
def truth(cpu_1p1d: Deployment) -> dict[str, str]:
    """What the undisturbed deployment answers to each prompt."""
    return {prompt: complete(prompt, url=cpu_1p1d.url).text for prompt in PROMPTS}


@contextmanager
def load(run: Deployment) -> Iterator[list[Answer]]:
    """A few clients that ask again and again, every other one for streams; what they got so far. Nothing is cached."""
    answers: list[Answer] = []
    over = threading.Event()

    def ask(number: int) -> None:
        turn = number
        while not over.is_set():
            turn += 1
            prompt = PROMPTS[turn % len(PROMPTS)]
            answers.append(complete(prompt, salt=f"{number}.{turn}", url=run.url, stream=number % 2 == 0))
            over.wait(PAUSE_S)

    with ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(ask, number) for number in range(CLIENTS)]
        try:
            until(lambda: len(answers) >= CLIENTS, "the load runs")
            yield answers
            seen = len(answers)
            until(lambda: len(answers) >= seen + 2 * CLIENTS, "the load goes on")
        finally:
            over.set()
        for client in clients:
            client.result()


def row(status: dict[str, Any], process: str) -> dict[str, Any]:
    """A process's row."""
    found: dict[str, Any] = next(p for p in status["processes"] if p["id"] == process)
    return found


def pids(run: Deployment) -> dict[str, int]:
    """Of every process of the run."""
    return {process["id"]: process["pid"] for process in run.status()["processes"]}


def done(run: Deployment, *arguments: str) -> float:
    """Seconds of a command that succeeds."""
    begun = time.monotonic()
    told = run.dynctl(*arguments)
    assert told.returncode == 0, told.stderr
    print(
        f"dynctl {' '.join(arguments)}: {time.monotonic() - begun:.1f} s", *re.findall(r".* in [\d.]+ s", told.stderr)
    )
    return time.monotonic() - begun


def check(answers: list[Answer], truth: dict[str, str]) -> None:
    """All were served, and with the right tokens."""
    assert [answer for answer in answers if answer.status != 200] == []
    assert [answer for answer in answers if answer.text != truth[answer.prompt]] == []
    print(f"{len(answers)} requests, 0 failed, the slowest took {max(answer.took_s for answer in answers):.1f} s")


def test_workers_come_go_and_are_restarted_under_streams(cpu_1p1d: Deployment, truth: dict[str, str]) -> None:
    """One prefill worker, two, each of them restarted and one of them drained, and one again: no request fails."""
    run = cpu_1p1d
    before = pids(run)
    with load(run) as answers:
        done(run, "scale", "prefill=2")
        two = run.status()
        assert [(p["id"], p["state"]) for p in two["processes"] if p["role"] == "prefill"] == [
            ("prefill-0", "ready"),
            ("prefill-1", "ready"),
        ]
        assert {(pair["from"], pair["verdict"]) for pair in two["transport"]["pairs"]} == {
            ("prefill-0", "shm"),
            ("prefill-1", "shm"),
        }
        done(run, "restart", run.name, "prefill-0")
        done(run, "drain", run.name, "prefill-0")
        assert row(run.status(), "prefill-0")["state"] == "draining"
        done(run, "drain", run.name, "prefill-0", "--undo")
        done(run, "scale", "prefill=1")
    check(answers, truth)
    after = pids(run)
    assert {process: after[process] == pid for process, pid in before.items()} == {
        "prefill-0": False,
        "decode-0": True,
        "frontend": True,
    }


class Stream(threading.Thread):
    """A long stream of the frontend, read in the background."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self.lines = url, list[str]()
        self.start()
        until(lambda: len(self.lines) > 1, "the stream has begun")

    def run(self) -> None:
        body = {**LONG, "stream": True, "stream_options": {"include_usage": True}}
        with httpx.stream("POST", f"{self._url}/v1/completions", json=body, timeout=START_S, trust_env=False) as answer:
            self.lines += (line for line in answer.iter_lines() if line)


def test_a_run_that_lost_its_supervisor_serves_on_and_is_adopted(cpu_1p1d: Deployment, truth: dict[str, str]) -> None:
    """No worker is touched and no stream is cut; then a dead worker is restarted as ever, and `down` ends all."""
    run = cpu_1p1d
    before, stream = pids(run), Stream(run.url)
    begun = len(stream.lines)
    supervisor = psutil.Process(run.status()["supervisor"]["pid"])
    with load(run) as answers:
        supervisor.send_signal(signal.SIGKILL)
        until(lambda: has_ended(supervisor), "the supervisor is gone")
        alone = run.status()
        assert (alone["state"], f"dynctl up {run.name}" in alone["reason"]) == ("unsupervised", True)
        done(run, "up", "-d", run.name)
        adopted = run.status()
        assert (adopted["state"], pids(run)) == ("ready", before)
        assert {pair["verdict"] for pair in adopted["transport"]["pairs"]} == {"shm"}
    check(answers, truth)
    assert len(stream.lines) > begun
    with load(run) as answers:
        psutil.Process(before["prefill-0"]).send_signal(signal.SIGKILL)
        until(lambda: row(run.status(), "prefill-0")["restarts"], "its end is noticed")
        until(lambda: run.status()["state"] == "ready", "it is back", START_S)
    check(answers, truth)
    assert {process: pid for process, pid in pids(run).items() if process != "prefill-0"} == {
        process: pid for process, pid in before.items() if process != "prefill-0"
    }
    assert "exit status unknown" in run.dynctl("events", run.name).stdout
    stream.join(START_S)
    assert stream.lines[-1] == "data: [DONE]"
    usage = msgspec.json.decode(stream.lines[-2].removeprefix("data: "))["usage"]
    assert usage["completion_tokens"] == LONG_TOKENS
    done(run, "down", run.name)
    assert run.processes() == []
