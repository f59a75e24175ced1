"""Measures arms round by round: the same sessions to each, in turns."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from dynctl.bench import ask
from dynctl.bench.job import Health, Job, Progress, Result, Session
from dynctl.bench.prompts import Vocabulary, guessed_vocabulary
from dynctl.bench.summary import Round, rates
from dynctl.bench.target import Meter, Target
from dynctl.bench.trace import TraceRow
from dynctl.bench.workload import PATHS, Workload, closed, opened, replayed
from dynctl.frontend.messages import RequestRecord
from dynctl.telemetry.window import EngineWindow

MAX_CONNECTIONS = 1024
STREAMS = 4
"""Of a trace that has no times, unless it is said otherwise."""


def fresh_nonce() -> str:
    """A nonce that no earlier bench had."""
    return secrets.token_hex(4)


class Arm:
    """A layout under one load, and what was measured of it so far. `ids`: input tokens by request id, as asked for."""

    def __init__(self, label: str, workload: Workload) -> None:
        self.label, self.workload = label, workload
        self.targets: list[Target] = []
        self.rounds: list[Round] = []
        self.healths: list[Health] = []
        self.windows: list[tuple[str, EngineWindow]] = []
        self.records: dict[str, RequestRecord] = {}
        self.ids: dict[str, int | None] = {}
        self.gave_up: str | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long an answer may not begin, or stand still; how many loader processes; how fast a trace is replayed."""

    head_timeout_s: float = 600.0
    stall_s: float = 60.0
    speed: float = 1.0


Tell = Callable[[str, Progress], None]


class Client(Protocol):
    """Who sends a job's requests and measures them: `Crew`, or another tool."""

    def run(self, job: Job, tell: Callable[[Progress], None], stopped: Callable[[], bool]) -> Result:
        """To its end, or until stopped."""


class Bench:
    """Runs rounds. `tell(what, progress)` is called as requests end; `stopped` is asked all the time."""

    def __init__(
        self, client: Client, limits: Limits, tell: Tell, stopped: Callable[[], bool], trace: Sequence[TraceRow] = ()
    ) -> None:
        self._client, self._limits, self._tell, self._stopped = client, limits, tell, stopped
        self._trace = list(trace)
        self._vocabularies: dict[str, Vocabulary | None] = {}

    def learn(self, target: Target, workload: Workload) -> bool:
        """Asks the target's tokenizer, once per target; whether it has one."""
        if target.url not in self._vocabularies:
            headers: Mapping[str, str] = dict(target.headers)
            chat = workload.endpoint == "chat"
            self._vocabularies[target.url] = ask.vocabulary(
                target.url, headers, workload.model, chat=chat, cert=target.cert
            )
        return self._vocabularies[target.url] is not None

    def round(self, arm: Arm, target: Target, number: int, meter: Meter, *, start_up: int = 0, warm: bool) -> None:
        """One round of one arm; `warm`: the first of a start-up, which gets twice the ramp."""
        job = self._job(target, arm.workload, number, warm=warm)
        for session in job.sessions:
            arm.ids.update((shot.id, shot.input_tokens) for shot in session.shots)
        meter.sample()
        result = self._run(job, f"round {number + 1}/{arm.workload.rounds}  {arm.label}")
        meter.sample()
        arm.healths += [result.health] if result.health is not None else []
        arm.gave_up = arm.gave_up or result.gave_up
        arm.rounds.append(
            Round(number=number, start_up=start_up, samples=result.samples, interrupted=result.interrupted)
        )

    def pace(self, target: Target, workload: Workload) -> float | None:
        """Requests per second of a trial that is kept nowhere; None where none was served."""
        result = self._run(self._job(target, workload, 0, warm=True), f"pace  {target.label}")
        found = rates(Round(number=0, samples=result.samples))
        return found.requests_per_s if found else None

    def _run(self, job: Job, what: str) -> Result:
        return self._client.run(job, lambda progress: self._tell(what, progress), self._stopped)

    def _sessions(self, workload: Workload, target: Target, number: int, *, warm: bool) -> tuple[Session, ...]:
        vocabulary = self._vocabularies.get(target.url) or guessed_vocabulary()
        if self._trace:
            return replayed(workload, vocabulary, number, self._trace, self._limits.speed)
        if workload.open is not None:
            return opened(workload, vocabulary, number)
        return closed(workload, vocabulary, number, warm=workload.concurrency if warm else 0)

    def _job(self, target: Target, workload: Workload, number: int, *, warm: bool) -> Job:
        sessions = self._sessions(workload, target, number, warm=warm)
        timed = sessions[0].at_s is not None
        rate = workload.open.rate if workload.open else 8.0
        connections = workload.concurrency or min(len(sessions), max(1, round(rate * 2)))
        return Job(
            url=target.url,
            path=PATHS[workload.endpoint],
            headers=target.headers,
            cert=target.cert,
            sessions=sessions,
            concurrency=workload.concurrency if timed else workload.concurrency or STREAMS,
            connections=min(connections, MAX_CONNECTIONS),
            head_timeout_s=self._limits.head_timeout_s,
            stall_s=self._limits.stall_s,
            tokenizer=target.plan.model if target.plan else "",
        )


def in_turns(
    bench: Bench,
    arms: Sequence[tuple[Arm, Target]],
    numbers: Sequence[int],
    stopped: Callable[[], bool],
    start_up: int = 0,
) -> None:
    """The arms' rounds of these numbers: AB, BA, AB... so that drift hits both. The arms keep what was measured."""
    meters = [Meter(target) for _, target in arms]
    for (arm, target), meter in zip(arms, meters, strict=True):
        arm.targets.append(target)
        meter.start()
    try:
        for at, number in enumerate(numbers):
            order = range(len(arms)) if number % 2 == 0 else reversed(range(len(arms)))
            for which in order:
                arm, target = arms[which]
                if stopped() or arm.gave_up:
                    return
                bench.round(arm, target, number, meters[which], start_up=start_up, warm=at == 0)
    finally:
        time.sleep(0 if stopped() else SETTLE_S)
        for (arm, target), meter in zip(arms, meters, strict=True):
            meter.stop()
            arm.records.update(meter.records)
            arm.windows += [(_role(target, name), window) for name, window in meter.windows.items()]


SETTLE_S = 1.0
"""The frontend reports twice a second, and engines count a transfer a little later."""


def _role(target: Target, process_id: str) -> str:
    return target.plan.process(process_id).role if target.plan else "worker"
