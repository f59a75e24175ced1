"""Workers come to a run that serves and go again: nothing of it may be felt by its users."""

from __future__ import annotations

import json
import signal
import socket

import psutil

from tests.integration.run_harness import Home, T, until
from tests.integration.test_operations import row, steady

ONE = ["prefill-0", "decode-0", "frontend"]
TWO = ["prefill-0", "prefill-1", "decode-0", "decode-1", "frontend"]


def ids(status: T) -> list[str]:
    return [process["id"] for process in status["processes"]]


def kept(home: Home) -> tuple[list[str], dict[str, int]]:
    """Processes of the plan and counts of the topology that are on disk."""
    plan = json.loads((home.run_dir / "plan.json").read_text())
    roles = json.loads((home.run_dir / "topology.json").read_text())["roles"]
    return [process["id"] for process in plan["processes"]], {role: spec["workers"] for role, spec in roles.items()}


def can_be_bound(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_workers_come_and_go_under_load(home: Home) -> None:
    home.up()
    before = home.status()
    with steady(home) as load:
        up = home.run("scale", "prefill=2", "decode=2")
        assert up.code == 0, up.err
        grown, saved = home.status(), kept(home)
        for port in (p["ports"]["http"] for p in grown["processes"] if p["id"].endswith("-1")):
            (record,) = (home.dir / "record").glob(f"*-{port}.jsonl")
            size = record.stat().st_size
            until(lambda record=record, size=size: record.stat().st_size > size, f"the one at {port} serves")
        down = home.run("scale", "decode=1", "prefill=1", "--run", home.name)
        assert down.code == 0, down.err
        sent = len(load.answers)
        until(lambda: len(load.answers) > sent + 5, "the load goes on")
    assert load.failed() == [], load.failed()[:5]

    assert (grown["state"], ids(grown), saved) == ("ready", TWO, (TWO, {"prefill": 2, "decode": 2}))
    for process in ONE:
        assert row(grown, process)["pid"] == row(before, process)["pid"], "they stay"
        assert row(grown, process)["ports"] == row(before, process)["ports"]
    ports = [port for process in grown["processes"] for port in process["ports"].values()]
    assert len(set(ports)) == len(ports)
    pairs = {(p["from"], p["to"]) for p in grown["transport"]["pairs"]}
    assert pairs == {(f"prefill-{a}", f"decode-{b}") for a in range(2) for b in range(2)}

    after = home.status()
    assert (after["state"], ids(after), kept(home)) == ("ready", ONE, (ONE, {"prefill": 1, "decode": 1}))
    assert [(p["from"], p["to"]) for p in after["transport"]["pairs"]] == [("prefill-0", "decode-0")]
    for gone in ("prefill-1", "decode-1"):
        assert not psutil.pid_exists(row(grown, gone)["pid"])
        assert all(can_be_bound(port) for port in row(grown, gone)["ports"].values())
    states = home.states()
    assert states == ["starting", "ready"], "never degraded: nothing was lost"
    told = home.events()
    at = next(e["seq"] for e in told if e.get("process") == "decode-1" and e.get("state") == "ready")
    proven = [e["seq"] for e in told if e["kind"] == "pair" and e["data"]["to"] == "decode-1"]
    assert min(proven) < at, "proven before it serves"


def test_what_can_not_be_is_refused_and_nothing_changes(home: Home) -> None:
    home.up()
    before = home.status()
    for counts, code, said in (
        (("decode=0",), 2, "can't go down to 0"),
        (("encode=2",), 2, "no workers of a role `encode`"),
        (("decode",), 2, "not of the form ROLE=N"),
        (("decode=300",), 3, "consecutive free ports"),
    ):
        done = home.run("scale", *counts)
        assert (done.code, said in done.error()["error"][0]) == (code, True), done.err
    same = home.run("scale", "decode=1", "prefill=1")
    assert (same.code, "nothing to do" in same.err) == (0, True)
    assert [p["pid"] for p in home.status()["processes"]] == [p["pid"] for p in before["processes"]]
    assert kept(home)[0] == ONE


def test_a_worker_that_does_not_start_leaves_the_run_as_it_was(home: Home) -> None:
    home.up()
    before = home.status()
    home.control(decode={"die_at_phase": "config", "die_message": "RuntimeError: no hope"})
    done = home.run("scale", "decode=2", "prefill=2")
    assert done.code == 1, done.err
    assert "decode-1 could not be started" in done.error()["error"][0]
    assert any("no hope" in line for line in done.error()["|"])
    after = home.status()
    assert (after["state"], ids(after), kept(home)[0]) == ("ready", ONE, ONE)
    assert [p["pid"] for p in after["processes"]] == [p["pid"] for p in before["processes"]]
    assert home.states() == ["starting", "ready"]
    home.control()
    assert home.run("scale", "decode=2").code == 0, "the id is free again"
    assert home.ask().status_code == 200
    assert home.run("drain", home.name, "decode-0").code == 0
    refused = home.run("scale", "decode=1")
    assert (refused.code, "no decode worker would be left" in refused.error()["error"][0]) == (5, True)


def test_a_scale_goes_on_without_its_command_and_alone(home: Home) -> None:
    home.up()
    home.control(prefill={"hang_at_phase": "config"})
    command = home.start("scale", "prefill=2")
    home.await_status(lambda s: "prefill-1" in ids(s), "it has begun")
    command.says("joins the run")
    refused = home.run("restart")
    assert (refused.code, "another operation" in refused.error()["error"][0]) == (5, True)
    command.signal(signal.SIGINT)
    left = command.wait()
    assert (left.code, "the supervisor goes on with it" in left.err) == (130, True)
    pid = row(home.await_status(lambda s: bool(row(s, "prefill-1")["pid"]), "it was started"), "prefill-1")["pid"]
    assert home.status()["state"] == "ready"
    assert home.run("down").code == 0
    assert not psutil.pid_exists(pid)
