"""Faults before a run is ready: `up` says what is wrong, with the right exit code, and leaves nothing."""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.chaos.fault import Seen
from tests.chaos.leftovers import Leftovers
from tests.chaos.world import World, wait_for
from tests.integration.run_harness import T

ALONE_S = 60.0
UP_ENDS_S = 240.0
"""Longer than `up` waits for a supervisor's first word."""
Prepare = Callable[[World], None]

THIEF = """
import json, os, pathlib, socket
state = pathlib.Path(os.environ["XDG_STATE_HOME"])
(plan,) = state.glob("dynctl/*/*/plan.json")
ports = [p["ports"]["http"] for p in json.loads(plan.read_text())["processes"] if p["id"] == "{}"]
stolen = socket.create_server(("127.0.0.1", ports[0]))
"""
"""Runs in the supervisor before anything of its own: somebody took a planned port after the plan was made."""
DIES, HANGS = "import os; os._exit(1)", "import time; time.sleep(600)"


@dataclass(frozen=True)
class Start:
    """A fault of `up`. `codes`: exit codes that are right; `says`: what its error must name."""

    name: str
    prepare: Prepare
    codes: tuple[int, ...]
    says: str
    changes: T | None = None


def starts() -> list[Start]:
    """Engines that fail in their first start, and a port that is lost between plan and spawn."""
    rows = []
    short: T = {"ready": {"stall": "3s", "timeout": "60s"}}
    for role in ("prefill", "decode"):
        rows += [
            Start(f"{role} exit 1 at start", _knobs(role, die_at_phase="weights"), (1,), role),
            Start(f"{role} hangs in start", _knobs(role, hang_at_phase="weights"), (124,), role, short),
        ]
    for command, name in (("frontend", "frontend"), ("_supervise", "supervisor")):
        rows.append(Start(f"{name} exit 1 at start", _hook(command, DIES), (1,), name))
    return [
        *rows,
        Start("frontend hangs in start", _hook("frontend", HANGS), (124,), "frontend", short),
        Start("supervisor hangs in start", _hook("_supervise", HANGS), (124,), "supervisor"),
        Start("decode-0's port stolen before spawn", _hook("_supervise", THIEF.format("decode-0")), (1, 3), "decode-0"),
        Start("frontend's port stolen before spawn", _hook("_supervise", THIEF.format("frontend")), (1, 3), "frontend"),
    ]


def _hook(command: str, code: str) -> Prepare:
    return lambda world: world.home.hook(command, code)


def _knobs(role: str, **knobs: object) -> Prepare:
    return lambda world: world.home.control(**{role: knobs})


def play_start(world: World, start: Start) -> Seen:
    """Runs `up` to its failure."""
    seen = Seen(start.name, f"`up` exits {' or '.join(map(str, start.codes))}, names {start.says}, nothing left")
    start.prepare(world)
    topology = world.home.topology(world.topology(start.changes))
    began = time.monotonic()
    done = world.home.start("up", "-d", topology, "--no-preflight").wait(UP_ENDS_S)
    seen.recovery_s = None
    seen.note = f"exit {done.code} after {time.monotonic() - began:.1f} s"
    if done.code not in start.codes:
        seen.problems.append(f"exits {done.code}")
    if start.says not in done.err or "Traceback" in "\n".join(done.err.splitlines()[:3]):
        seen.problems.append(f"says {done.err.strip()[-200:]!r}")
    world.ended(5.0)
    seen.orphans = len(world.home.processes())
    if seen.orphans:
        seen.problems.append(f"{seen.orphans} left")
    return seen


def kill_in_up(world: World, chance: random.Random, whom: str, times: int, longest_s: float, within_s: float) -> Seen:
    """`up` or its supervisor, or both, killed at random moments; `down --orphans` leaves nothing. Each time anew.

    `within_s`: after so long there are no more, and the row says how many there were.
    """
    seen = Seen("", "nothing left after `down --orphans`")
    end = time.monotonic() + within_s
    seen.orphans = 0
    leftovers, late = Leftovers(world.home, fake=world.fake), 0
    for number in range(times):
        if time.monotonic() > end:
            times = number
            break
        topology = world.home.topology(world.topology())
        command = world.home.start("up", "-d", topology, "--no-preflight", "--no-verify")
        time.sleep(chance.uniform(0.0, longest_s))
        too_late = command.process.poll() is not None
        if whom in ("dynctl", "both"):
            command.signal(signal.SIGKILL)
        if whom in ("supervisor", "both"):
            for process in _supervisors(world):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        command.wait()
        done = world.home.run("down", "--orphans")
        if done.code not in (0, 5) or "Traceback" in done.err:
            seen.problems.append(f"`down --orphans` exits {done.code}: {done.err.strip()[-200:]}")
        if too_late or ((status := world.status()) and status.state == "ready"):
            late += 1
            world.home.run("down", world.home.name)  # it was ready before the kill: no orphan, and not to be touched
        # one whose starter was killed ends by itself, however long its own start takes on a busy machine
        wait_for(lambda: not _supervisors(world), ALONE_S)
        if not world.ended(10.0):
            left = world.home.processes()
            seen.orphans += len(left)
            seen.problems.append(f"moment {number}: {'; '.join(_described(process) for process in left)}")
            print(seen.problems[-1], file=sys.stderr, flush=True)
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        if left_behind := leftovers.left():
            seen.problems.append(f"moment {number}: {', '.join(left_behind[:6])}")
            leftovers = Leftovers(world.home, fake=world.fake)
    seen.fault = f"{whom} SIGKILL in `up`, {times} moments"
    seen.note = f"0 processes, ports, segments and sockets left; {late} times it was ready before"
    if seen.orphans:
        seen.problems.append(f"{seen.orphans} left")
    return seen


def _described(process: psutil.Process) -> str:
    """A process that should not be there: what it is, whose child, since when, what it waits for."""
    with contextlib.suppress(psutil.Error, OSError):
        age_s = time.time() - process.create_time()
        stack = Path(f"/proc/{process.pid}/wchan").read_text()
        command = " ".join(process.cmdline())[-160:]
        return f"pid {process.pid} of {process.ppid()}, {process.status()} in {stack}, {age_s:.0f} s old: {command}"
    return f"pid {process.pid}, gone meanwhile"


def _supervisors(world: World) -> list[psutil.Process]:
    found = []
    for process in world.home.processes():
        with contextlib.suppress(psutil.Error):
            if "_supervise" in process.cmdline():
                found.append(process)
    return found
