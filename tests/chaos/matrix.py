"""The matrix: each fault and what must hold."""

from __future__ import annotations

import random
import signal
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

from tests.chaos import harm
from tests.chaos.fault import ORDER, End, Fault, Lost
from tests.chaos.world import STALL_S

DEAD_MS = 100.0
STALLED_PERIODS = 2
WORKERS: tuple[tuple[str, Lost], ...] = (("prefill-0", "none"), ("decode-0", "begun"))
MEMBERS: tuple[tuple[str, Lost], ...] = (
    *WORKERS, ("prefill-0.core", "none"), ("decode-0.core", "begun"), ("frontend", "any"),
)  # fmt: skip


def matrix(stop_s: float) -> list[Fault]:
    """All of it; `stop_s`: how long what is stopped stays stopped."""
    return [*_signals(stop_s), *_whole_run(stop_s), *_engines(), *_dynctls(), *_files(), *_limits()]


def _signals(stop_s: float) -> list[Fault]:
    rows = [
        Fault(
            f"{target} {number.name}",
            target,
            harm.send(number, target),
            lost,
            notice_ms=DEAD_MS,
            from_end=True,
            real=True,
        )
        for target, lost in MEMBERS
        for number in (SIGKILL, SIGTERM)
    ]
    return rows + [_stopped(target, lost, stop_s) for target, lost in MEMBERS]


def _stopped(target: str, lost: Lost, stop_s: float) -> Fault:
    stop = harm.Stop(target)
    name = f"{target} SIGSTOP {stop_s:g} s"
    return Fault(
        name, target, stop.stop, lost, mend=stop.go_on, hold_s=stop_s, notice_periods=STALLED_PERIODS, real=True
    )


def _whole_run(stop_s: float) -> list[Fault]:
    both = harm.send(SIGKILL, "prefill-0", "prefill-1")
    down: End = "ends"
    return [
        Fault("both prefill SIGKILL", "prefill-0", both, "none", notice_ms=DEAD_MS, from_end=True),
        Fault("both decode SIGKILL", "decode-0", harm.send(SIGKILL, "decode-0", "decode-1"), "any", notice_ms=DEAD_MS,
              from_end=True, real=True),
        Fault("all but supervisor SIGKILL", "decode-0", harm.send_to_run(SIGKILL), "any", notice_ms=DEAD_MS,
              from_end=True, real=True),
        Fault("supervisor SIGSTOP", "supervisor", harm.send(SIGSTOP, "supervisor"), "none",
              mend=harm.send_all(SIGCONT), hold_s=stop_s, real=True),
        Fault("all SIGSTOP", "all", harm.send_all(SIGSTOP), "any", mend=harm.send_all(SIGCONT), hold_s=stop_s,
              real=True),
        Fault("supervisor SIGKILL", "supervisor", harm.send(SIGKILL, "supervisor"), "none", end="adopted", real=True),
        Fault("supervisor SIGTERM", "supervisor", harm.send(SIGTERM, "supervisor"), "any", end=down, real=True),
        Fault("supervisor SIGHUP", "supervisor", harm.send(signal.SIGHUP, "supervisor"), "none", real=True),
        Fault("all SIGTERM", "all", harm.send_all(SIGTERM), "any", end=down, real=True),
        Fault("all SIGKILL", "all", harm.send_all(SIGKILL), "any", end="again", real=True),
    ]  # fmt: skip


def _engines() -> list[Fault]:
    rows = []
    for target, lost in WORKERS:
        late = {"mend": harm.well, "hold_s": 3.0}
        rows += [
            Fault(f"{target} exit 1 at restart", target, harm.killed_and(target, die_at_phase="config"), lost,
                  notice_ms=DEAD_MS, from_end=True, real=True, **late),
            Fault(f"{target} hangs in restart", target, harm.killed_and(target, hang_at_phase="weights"), lost,
                  notice_ms=DEAD_MS, from_end=True, **late),
            Fault(f"{target} crashes on 10th request", target, harm.crash_on(target, 10), lost, real=True),
            Fault(f"{target} hangs after ready", target, harm.tell(target, stuck=True), lost,
                  notice_periods=STALLED_PERIODS, mend=harm.well, hold_s=STALL_S + 1, real=True),
            Fault(f"{target} 10x slower", target, harm.slower(target), "none", mend=harm.well, hold_s=4.0, real=True),
            Fault(f"{target} garbage on its port", target, harm.tell(target, garbage=True), lost,
                  notice_periods=STALLED_PERIODS, mend=harm.well, hold_s=STALL_S + 1, real=True),
            Fault(f"{target} port stolen", target, harm.steal_port(target, 4.0), lost, real=True),
        ]  # fmt: skip
    return rows


def _dynctls() -> list[Fault]:
    """Faults of dynctl's own processes, besides signals."""
    rows = []
    for target in ("frontend", "supervisor"):
        slow = harm.Slow(target)
        rows.append(Fault(f"{target} 10x slower", target, slow.begin, "none", mend=slow.end, hold_s=4.0, real=True))
    return [*rows, Fault("frontend port stolen", "frontend", harm.steal_port("frontend", 4.0), "any", real=True)]


def _files() -> list[Fault]:
    logs, state = harm.Disk("logs"), harm.Disk(".")
    everyone = ("supervisor", "frontend", "prefill-0", "decode-0")
    return [
        Fault("disk full for logs", "logs", logs.full, "none", mend=logs.freed, hold_s=3.0, skip=harm.no_mounts,
              real=True),
        Fault("disk full for state", "state", state.full, "none", mend=state.freed, hold_s=3.0, skip=harm.no_mounts,
              real=True),
        Fault("disk full, prefill-0 killed", "prefill-0",
              harm.then(harm.writes_fail(*everyone, fail=True), harm.send(SIGKILL, "prefill-0")), "none",
              mend=harm.writes_fail("supervisor", "frontend", fail=False), hold_s=3.0),
        Fault("plan.json truncated", "plan.json", harm.truncate("plan.json", 0.5), "none", real=True),
        Fault("events.jsonl half written", "events.jsonl", harm.truncate("events.jsonl", 0.7), "none", real=True),
        Fault("run.json truncated, run killed", "run.json",
              harm.then(harm.truncate("run.json", 0.5), harm.send_all(SIGKILL)), "any", end="ends", real=True),
        Fault("run directory removed", "run directory", harm.remove_run_directory, "none", real=True),
    ]  # fmt: skip


def _limits() -> list[Fault]:
    kill = harm.send(SIGKILL, "decode-0")
    return [
        Fault("supervisor out of descriptors", "decode-0",
              harm.then(harm.no_descriptors("supervisor", none=True), kill), "begun",
              mend=harm.no_descriptors("supervisor", none=False), hold_s=3.0),
        Fault("frontend out of descriptors", "frontend", harm.no_descriptors("frontend", none=True), "any",
              mend=harm.no_descriptors("frontend", none=False), hold_s=3.0, real=True),
    ]  # fmt: skip


def at_random(seed: int, count: int) -> list[Fault]:
    """Two signals to two members, a random moment apart."""
    chance = random.Random(seed)
    members = [("prefill-0", "none"), ("prefill-1", "none"), ("decode-0", "begun"), ("frontend", "any"),
               ("prefill-0.core", "none"), ("decode-0.core", "begun")]  # fmt: skip
    rows = []
    for number in range(count):
        (first, a), (second, b) = chance.sample(members, 2)
        while first.split(".")[0] == second.split(".")[0]:
            (first, a), (second, b) = chance.sample(members, 2)
        kinds = [chance.choice((SIGKILL, SIGTERM)) for _ in range(2)]
        gap_s = round(chance.uniform(0, 2), 2)
        lost: Lost = max((a, b), key=ORDER.index)  # type: ignore[type-var, assignment]
        both = harm.then(harm.send(kinds[0], first), harm.send(kinds[1], second), gap_s=gap_s)
        name = f"#{number}: {first} {kinds[0].name}, {gap_s:g} s later {second} {kinds[1].name}"
        rows.append(Fault(name, first, both, lost))
    return rows
