"""Brings one fault upon a deployment under load and judges what is seen."""

from __future__ import annotations

import time

from tests.chaos.ends import Ends, noticed_late_ms
from tests.chaos.fault import Fault, Seen
from tests.chaos.load import SERVED, Load
from tests.chaos.world import World, wait_for

AFTER_S = 1.0
ENDS_S = 20.0
"""Longer than an engine core takes to end by SIGTERM."""
LATE = "noticed after"


def play(world: World, fault: Fault) -> tuple[Seen, bool]:
    """What was seen, and whether the deployment is whole and may take the next fault."""
    seen = Seen(fault.name, fault.expected(world.canary_s))
    if skip := fault.skip():
        seen.skipped = skip
        return seen, True
    load = world.load()
    try:
        assert wait_for(lambda: load.tally.kinds[SERVED] >= world.clients, 60), "nothing is served before the fault"
        ends = world.watch_ends(fault.target) if fault.from_end else None
        began, since = time.monotonic(), time.time()
        fault.harm(world)
        _notice(world, fault, seen, since, ends)
        if fault.mend:
            time.sleep(max(0.0, fault.hold_s - (time.monotonic() - began)))
            fault.mend(world)
        whole = _end(world, fault, seen, load, began)
    finally:
        world.tell()
        seen.tally = load.stop()
    seen.judge_load(fault.lost)
    if whole:
        wait_for(lambda: not world.orphans(), 5.0)
        seen.orphans = len(left := world.orphans())
        if left:
            seen.problems.append(f"orphans: {', '.join(left[:4])}")
    return seen, whole and all(problem.startswith(LATE) for problem in seen.problems)


def _notice(world: World, fault: Fault, seen: Seen, since: float, ends: Ends | None) -> None:
    limit_ms = fault.limit_ms(world.canary_s)
    if limit_ms is None:
        return
    if not wait_for(lambda: world.noticed_at(fault.target, since) is not None, world.notice_s):
        seen.problems.append(f"not noticed within {world.notice_s:g} s")
        return
    noticed = world.noticed_at(fault.target, since) or since
    late_ms = (noticed - since) * 1000
    if ends:
        wait_for(lambda: ends.first() is not None, ENDS_S)
        late_ms, seen.aside = noticed_late_ms(since, ends.first(), noticed)
    seen.detection_ms = round(late_ms, 1)
    if seen.detection_ms > limit_ms:
        seen.problems.append(f"{LATE} {seen.detection_ms:g} ms")


def _end(world: World, fault: Fault, seen: Seen, load: Load, began: float) -> bool:
    if fault.end == "heals":
        return _await_whole(world, seen, load, began)
    if fault.end == "adopted":
        return _adopt(world, seen, load, began)
    if not world.ended(world.heal_s):
        seen.orphans = len(world.home.processes())
        seen.problems.append(f"{seen.orphans} processes left")
        return False
    seen.orphans = 0
    if fault.end == "ends":
        seen.note = "the run has ended"
        return False
    _up_again(world, seen)
    return _await_whole(world, seen, load, began)


def _await_whole(world: World, seen: Seen, load: Load, began: float) -> bool:
    if not wait_for(world.whole, world.heal_s):
        status = world.status()
        states = {p.id: p.state for p in status.processes if p.state != "ready"} if status else "no supervisor"
        seen.problems.append(f"not whole after {world.heal_s:g} s: {states}")
        return False
    seen.recovery_s = round(time.monotonic() - began, 1)
    served = load.tally.kinds[SERVED]
    if not wait_for(lambda: load.tally.kinds[SERVED] >= served + world.clients, 60):
        seen.problems.append("nothing is served afterwards")
        return False
    time.sleep(AFTER_S)
    return True


def _up_again(world: World, seen: Seen) -> None:
    done = world.home.start("up", world.home.name, "-d", "--no-preflight", "--no-verify").wait(world.up_s)
    if done.code:
        seen.problems.append(f"`up NAME` exits {done.code}: {done.err.strip().splitlines()[0][:200]}")


def _adopt(world: World, seen: Seen, load: Load, began: float) -> bool:
    before = load.tally.kinds[SERVED]
    if not wait_for(lambda: load.tally.kinds[SERVED] >= before + world.clients, 30):
        seen.problems.append("workers don't serve on")
    state = world.home.status()["state"]
    if state != "unsupervised":
        seen.problems.append(f"status says {state}")
    workers = {p.pid for p in world.home.processes() if "EngineCore" in " ".join(p.cmdline())}
    _up_again(world, seen)
    whole = _await_whole(world, seen, load, began)
    if whole and not workers <= {p.pid for p in world.home.processes()}:
        seen.problems.append("adoption restarted a healthy worker")
    return whole
