"""Cores, memory policy and order of start: planned, in force in every process of the run, and shown."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from dynctl.hardware.values import parse_cpu_list
from tests.integration.run_harness import Home, T
from tests.integration.test_degraded import NO_HOPE, kill, ready_again, row

CORES = sorted(os.sched_getaffinity(0))
PLANNED = """
import msgspec
from dynctl.store.run import RunStore
whole = RunStore.whole_plan
def changed(store):
    plan, changes = whole(store), {changes!r}
    specs = [msgspec.structs.replace(spec, **changes.get(spec.id, {{}})) for spec in plan.processes]
    return msgspec.structs.replace(plan, processes=tuple(specs))
RunStore.whole_plan = changed
"""
REFUSING = """
import errno
from dynctl.runtime import mempolicy
def refused(*_):
    raise OSError(errno.EPERM, "Operation not permitted")
mempolicy.set_policy = refused
"""
FIRST_PREFILL = {"decode-0": {"after": ("prefill-0",)}}


def planned(home: Home, changes: dict[str, dict[str, Any]]) -> None:
    """From here on runs have these changes in their processes' specifications."""
    home.hook("_supervise", PLANNED.format(changes=changes))


def tree(pid: int) -> list[int]:
    """The process and its descendants."""
    root = psutil.Process(pid)
    return [pid, *(child.pid for child in root.children(recursive=True))]


def cores_of(*pids: int) -> set[int]:
    """Cores that any thread of the processes may run on."""
    found: set[int] = set()
    for member in pids:
        for status in Path(f"/proc/{member}/task").glob("*/status"):
            (line,) = [line for line in status.read_text().splitlines() if line.startswith("Cpus_allowed_list")]
            found.update(parse_cpu_list(line.split()[1]))
    return found


def policies_of(*pids: int) -> set[str]:
    """Memory policies of the programs that they run."""
    maps = [Path(f"/proc/{member}/numa_maps") for member in pids]
    if not os.access(maps[0], os.R_OK):
        pytest.skip("this kernel has no numa_maps")
    return {file.read_text().split(maxsplit=2)[1] for file in maps}


def pid_of(status: T, process: str) -> int:
    pid: int = row(status, process)["pid"]
    return pid


def moments(home: Home, process: str, state: str) -> list[int]:
    """Numbers of the events with which a process entered a state, or passed a gate."""
    return [e["seq"] for e in home.events() if e.get("process") == process and state in (e.get("state"), e["message"])]


def test_cores_and_memory_policy_are_in_force_and_again_after_a_restart(home: Home) -> None:
    first, last = str(CORES[0]), str(CORES[-1])
    planned(
        home, {"prefill-0": {"cpus": first, "memory_nodes": (0,)}, "decode-0": {"cpus": last, "memory_nodes": (0,)}}
    )
    home.up({"roles": {"prefill": {"restart": {"backoff": "100ms"}}}})
    status = home.status()
    for process, core in (("prefill-0", first), ("decode-0", last)):
        members = tree(pid_of(status, process))
        assert cores_of(*members) == {int(core)}
        policies = policies_of(*members)
        bound = row(status, process)["bound"]
        assert (bound["cpus"], {bound["memory"]}) == (core, policies)
        if bound["ok"]:
            assert policies == {"prefer:0"}
    assert row(status, "frontend")["bound"] is None
    assert cores_of(status["supervisor"]["pid"]) == set(CORES)
    assert "prefer:0" not in policies_of(status["supervisor"]["pid"])
    assert f"cores {first}  mem 0✓" in home.run("status").out

    kill(home, "prefill-0")
    again = pid_of(home.await_status(ready_again("prefill-0"), "prefill is back"), "prefill-0")
    assert cores_of(*tree(again)) == {int(first)}
    assert policies_of(*tree(again)) == {row(home.status(), "prefill-0")["bound"]["memory"]}


def test_a_refused_memory_policy_is_said_and_fails_nothing(home: Home) -> None:
    planned(home, {"decode-0": {"cpus": str(CORES[0]), "memory_nodes": (0,)}})
    home.hook("_supervise", REFUSING)
    home.up()
    bound = row(home.status(), "decode-0")["bound"]
    assert not bound["ok"]
    assert "refuses a memory policy (Operation not permitted)" in bound["note"]
    (said,) = [e for e in home.events() if e["message"] == "not bound as planned"]
    assert (said["kind"], said["process"], said["why"]) == ("warning", "decode-0", bound["note"])
    shown = home.run("status").out
    assert "mem 0✗" in shown
    assert "! decode-0 is not bound as planned: the kernel refuses" in shown
    assert home.ask().status_code == 200


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_an_engine_that_moves_its_threads_is_noticed(home: Home) -> None:
    """Affinity at exec is not the last word: an engine may pin itself while it loads."""
    planned(home, {"decode-0": {"cpus": str(CORES[0])}})
    home.hook("_supervise", f"from dynctl.runtime import managed\nmanaged.hold_to = lambda _, p: {moved(CORES[1])}")
    home.up()
    bound = row(home.status(), "decode-0")["bound"]
    assert not bound["ok"]
    assert f"may run on cores {CORES[1]}, planned are {CORES[0]}" in bound["note"]


def moved(core: int) -> str:
    """An expression that moves the first of `p` to a core."""
    return f"__import__('os').sched_setaffinity(p[0].pid, {{{core}}})"


def test_cores_that_the_machine_no_longer_allows_end_the_start(home: Home) -> None:
    planned(home, {"decode-0": {"cpus": "4000"}})
    failed = home.run("up", "-d", home.topology())
    assert failed.code == 3
    assert "may not use the cores 4000" in failed.error()["error"][0]
    home.nothing_left()


def test_a_worker_starts_after_the_one_it_shares_with(home: Home) -> None:
    planned(home, FIRST_PREFILL)
    home.control(prefill={"hang_at_phase": "kv_cache"})
    # the waiting one says nothing for longer than a stall may last; the other is given up for its own silence
    up = home.start("up", home.topology({"ready": {"stall": "4s"}}))
    up.says("decode-0     waits for prefill-0")
    status = home.await_status(lambda s: row(s, "prefill-0")["state"] == "loading", "prefill loads")
    waiting = row(status, "decode-0")
    assert (waiting["state"], waiting["pid"], waiting["phase"]) == ("pending", None, "waits for prefill-0")
    assert "waits for prefill-0" in home.run("status").out
    done = up.wait()
    assert done.code == 124
    assert "prefill-0 made no progress" in done.error()["error"][0]
    assert home.states("decode-0") == ["stopped"]
    home.nothing_left()


def test_the_order_of_start(home: Home) -> None:
    planned(home, FIRST_PREFILL)
    home.up()
    (healthy,) = moments(home, "prefill-0", "healthy")
    (spawned,) = moments(home, "decode-0", "starting")
    assert healthy < spawned
    assert row(home.status(), "decode-0")["phase"] is None


def test_the_death_of_the_earlier_one_ends_the_start(home: Home) -> None:
    planned(home, FIRST_PREFILL)
    home.control(prefill=NO_HOPE)
    failed = home.run("up", "-d", home.topology())
    assert failed.code == 1
    assert "prefill-0 died" in failed.error()["error"][0]
    assert home.states("decode-0") == ["stopped"]
    home.nothing_left()


def test_a_restart_does_not_wait_for_one_that_is_down(home: Home) -> None:
    planned(home, FIRST_PREFILL)
    soon = {"restart": {"max": 1, "backoff": "100ms"}}
    home.up({"roles": {"prefill": soon, "decode": soon}})
    home.control(prefill=NO_HOPE)
    kill(home, "prefill-0")
    home.await_status(lambda s: row(s, "prefill-0")["state"] == "failed", "prefill is given up")
    kill(home, "decode-0")
    home.await_status(
        lambda s: row(s, "decode-0")["state"] == "ready" and row(s, "decode-0")["restarts"] == 1, "decode is back"
    )
    assert home.ask().status_code == 200


def test_restarts_on_one_device_take_turns(home: Home) -> None:
    """Both die at once: an engine that measures free memory must not do so while the other takes it."""
    planned(home, FIRST_PREFILL)
    soon = {"restart": {"max": 3, "backoff": "100ms"}}
    home.up({"roles": {"prefill": soon, "decode": soon}})
    status = home.status()
    for process in ("prefill-0", "decode-0"):
        os.kill(pid_of(status, process), signal.SIGKILL)
    home.await_status(lambda s: ready_again("prefill-0")(s) and ready_again("decode-0")(s), "both are back")
    begun = [moments(home, process, "starting")[1:] for process in ("prefill-0", "decode-0")]
    up = [moments(home, process, "model listed")[1:] for process in ("prefill-0", "decode-0")]
    spans = sorted(zip((b[-1] for b in begun), (u[-1] for u in up), strict=True))
    assert spans[0][1] < spans[1][0], home.events()
