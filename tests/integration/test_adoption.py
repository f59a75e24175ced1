"""The supervisor is killed, `up NAME` puts another in its place: what serves is not touched, what died is mended."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from dynctl.plan.ports import default_range
from dynctl.runtime import cgroups
from tests.integration.run_harness import Home, T, has_ended, until

IDS = ("frontend", "prefill-0", "decode-0")


def row(status: T, process: str) -> T:
    found: T = next(p for p in status["processes"] if p["id"] == process)
    return found


def pids(status: T, *ids: str) -> dict[str, int]:
    return {process: row(status, process)["pid"] for process in ids or IDS}


def lose_supervisor(home: Home) -> None:
    supervisor = psutil.Process(home.status()["supervisor"]["pid"])
    supervisor.kill()
    until(lambda: has_ended(supervisor), "the supervisor is gone")


class Stream(threading.Thread):
    """A streamed answer that is read in the background."""

    def __init__(self, home: Home, tokens: int) -> None:
        super().__init__(daemon=True)
        self._home, self._tokens = home, tokens
        self.lines: list[str] = []
        self.start()
        until(lambda: len(self.lines) > 1, "the stream has begun")

    def run(self) -> None:
        for line in self._home.stream(max_tokens=self._tokens):
            self.lines.append(line)


def test_up_by_name_adopts_what_serves_under_a_stream(home: Home) -> None:
    home.up()
    home.control(decode={"token_delay_ms": 200})
    before = home.status()
    stream = Stream(home, 300)
    home.control()
    lose_supervisor(home)
    alone = home.status()
    assert alone["state"] == "unsupervised"
    assert f"dynctl up {home.name}" in alone["reason"]
    done = home.run("up", "-d", home.name)
    assert done.code == 0, f"{done.err}\n{home.logs()}"
    assert "adopting" in done.err
    after = home.status()
    assert (after["state"], pids(after)) == ("ready", pids(before))
    assert after["supervisor"]["pid"] not in (None, before["supervisor"]["pid"])
    assert after["transport"] == before["transport"]
    assert after["verify"] == before["verify"]
    assert stream.is_alive(), "the stream outlasts the adoption"
    numbers = [event["seq"] for event in home.events()]
    assert numbers == sorted(set(numbers))
    # a worker that was adopted is watched at once, and its exit status is nobody's to know
    os.kill(row(after, "prefill-0")["pid"], signal.SIGKILL)
    again = home.await_status(lambda s: s["state"] == "ready" and row(s, "prefill-0")["restarts"] == 1, "it is back")
    assert pids(again, "frontend", "decode-0") == pids(before, "frontend", "decode-0")
    assert "exit status unknown" in " ".join(event["message"] for event in home.events())
    stream.join(240)
    assert stream.lines[-1] == "[DONE]"
    assert sum('"text"' in line for line in stream.lines) >= 300
    down = home.run("down", home.name)
    assert down.code == 0, down.err
    home.nothing_left()


def test_what_died_meanwhile_is_restarted_and_counts_go_on(home: Home) -> None:
    home.up()
    home.run("restart", home.name, "decode-0")
    before = home.status()
    lose_supervisor(home)
    dead = psutil.Process(row(before, "prefill-0")["pid"])
    dead.kill()
    until(lambda: has_ended(dead), "a worker dies unseen")
    stuck = psutil.Process(row(before, "decode-0")["pid"])
    stuck.suspend()
    done = home.run("up", "-d", home.topology())
    assert done.code == 0, f"{done.err}\n{home.logs()}"
    found = home.await_status(lambda s: row(s, "decode-0")["state"] == "unhealthy", "a stalled worker is noticed")
    stuck.resume()
    found = home.await_status(lambda s: s["state"] == "ready", "all are back")
    assert pids(found, "frontend", "decode-0") == pids(before, "frontend", "decode-0")
    assert row(found, "prefill-0")["pid"] != row(before, "prefill-0")["pid"]
    assert {p: row(found, p)["restarts"] for p in IDS} == {"frontend": 0, "prefill-0": 1, "decode-0": 1}
    assert home.ask().status_code == 200


def test_one_of_two_adopts_and_another_topology_is_refused(home: Home) -> None:
    home.up()
    before = home.status()
    lose_supervisor(home)
    other = home.run("up", "-d", home.topology({"slo": {"ttft": "1s"}}, file="other.yaml"))
    assert other.code == 5
    assert "another topology" in other.error()["error"][0]
    assert f"dynctl up {home.name}" in other.error()["fix"][0]
    assert home.status()["state"] == "unsupervised"
    both = [home.start("up", "-d", home.name) for _ in range(2)]
    results = sorted((command.wait() for command in both), key=lambda result: result.code)
    assert [result.code for result in results] == [0, 5], [result.err for result in results]
    assert "already running" in results[1].error()["error"][0]
    assert pids(home.status()) == pids(before)


def test_the_ports_of_a_worker_that_died_meanwhile_are_nobody_elses(home: Home) -> None:
    home.up()
    before = home.status()
    lose_supervisor(home)
    leader = psutil.Process(row(before, "prefill-0")["pid"])
    for process in (tree := [leader, *leader.children(recursive=True)]):
        process.kill()
    until(lambda: all(has_ended(process) for process in tree), "a worker dies unseen, and nothing holds its ports")
    names = (f"t{number}" for number in itertools.count())
    other = next(name for name in names if default_range(name) == default_range(home.name))
    plan = home.run("plan", home.topology({"name": other, "frontend": {"port": home.free_port()}}), "--json").json()
    held = {port for process in before["processes"] for port in process["ports"].values()}
    assert not held & {port for process in plan["processes"] for port in process["ports"].values()}


def test_up_of_a_name_that_no_run_has(home: Home) -> None:
    done = home.run("up", "-d", "no-such-run")
    assert done.code == 2
    assert "no run of that name" in done.error()["error"][0]


@contextlib.contextmanager
def another_login(home: Home) -> Iterator[Path | None]:
    """Commands have another temporary directory and, where one may be made, another control group, which is yielded."""
    (home.dir / "elsewhere").mkdir()
    home.env["TMPDIR"] = str(home.dir / "elsewhere")
    own = cgroups.own()
    if own is None:
        yield None
        return
    group = own / home.name
    group.mkdir()
    home.inside = ("sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh")
    try:
        yield group
    finally:
        home.inside = ()
        cgroups.remove(group)


def test_another_login_adopts_a_scaled_run_in_the_foreground(home: Home) -> None:
    home.up()
    assert home.run("scale", "prefill=2").code == 0
    before, run_id = home.status(), json.loads((home.run_dir / "run.json").read_text())["run_id"]
    ids = [process["id"] for process in before["processes"]]
    lose_supervisor(home)
    with another_login(home) as group:
        watching = home.start("up", home.name)
        watching.says(f"{home.name} is ready")
        found = home.status()
        assert (ids, pids(found, *ids)) == (["prefill-0", "prefill-1", "decode-0", "frontend"], pids(before, *ids))
        assert {(pair["from"], pair["to"]) for pair in found["transport"]["pairs"]} == {
            ("prefill-0", "decode-0"),
            ("prefill-1", "decode-0"),
        }
        assert home.run("restart", home.name, "prefill-1").code == 0
        assert home.run("scale", "prefill=1").code == 0
        assert home.ask().status_code == 200
        places = [*home.dir.glob(f"*/**/{run_id[:12]}"), *(found_in(group.parent, run_id) if group else ())]
        assert len(places) == (4 if group else 2), "each login has a directory and a control group of its own"
        watching.signal(signal.SIGINT)
        assert watching.wait().code == 130
        assert [place for place in places if place.exists()] == []
    home.nothing_left()


def found_in(base: Path, run_id: str) -> list[Path]:
    """The run's control groups below that one."""
    return [*base.glob(f"{cgroups.PREFIX}{run_id}"), *base.glob(f"*/{cgroups.PREFIX}{run_id}")]
