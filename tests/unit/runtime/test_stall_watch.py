"""The watch for stalls, with a clock that only sleeping moves and a process that only exists on paper."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from dynctl.engines.spec import ProcessSpec
from dynctl.errors import ReadyTimeout
from dynctl.runtime import gates
from dynctl.runtime.gates import StallWatch

STALL_S = 10.0


class Times(NamedTuple):
    user: float
    system: float


class Io(NamedTuple):
    read_bytes: int
    write_bytes: int


class Worker:
    """Stands for a Managed and for the one psutil process in its tree. `act(now)` is what it does."""

    def __init__(self, clock: Clock, act: Callable[[Worker, float], None]) -> None:
        self.id, self.phase, self.state = "decode-0", "loading weights", "loading"
        self.spec = ProcessSpec(id="decode-0", role="decode", argv=("e",))
        self.tail = types.SimpleNamespace(bytes_read=100)
        self.cpu_s, self.io_bytes, self.members, self.progress = 1.0, 0, 1, 0
        self._clock, self._act = clock, act

    def processes(self) -> list[Worker]:
        self._act(self, self._clock.now)
        return [self] * self.members

    def cpu_times(self) -> Times:
        return Times(self.cpu_s / self.members, 0.0)

    def io_counters(self) -> Io:
        return Io(self.io_bytes, 0)

    def last_lines(self) -> list[str]:
        return ["last line"]


class Clock:
    """Monotonic seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > 1000 + 20 * STALL_S:
            raise asyncio.CancelledError  # it went on for long enough


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()

    async def at_once(call: Callable[[], Any]) -> Any:
        return call()

    monkeypatch.setattr(gates, "time", made)
    monkeypatch.setattr(gates, "asyncio", types.SimpleNamespace(sleep=made.sleep, to_thread=at_once))
    return made


async def stalled_after(clock: Clock, act: Callable[[Worker, float], None]) -> float | None:
    """Seconds until the watch gave up; None if it never did."""
    watch = StallWatch(Worker(clock, act), STALL_S)  # type: ignore[arg-type]
    try:
        await watch.run()
    except asyncio.CancelledError:
        return None
    except ReadyTimeout:
        return clock.now - 1000


def silent(worker: Worker, now: float) -> None:
    pass


def logging(worker: Worker, now: float) -> None:
    worker.tail.bytes_read = 100 + int(now / (STALL_S - 2))


def computing(worker: Worker, now: float) -> None:
    worker.cpu_s = now


def heartbeat(worker: Worker, now: float) -> None:
    worker.cpu_s = 0.01 * now


def downloading(worker: Worker, now: float) -> None:
    worker.io_bytes = int(now)


def forking(worker: Worker, now: float) -> None:
    worker.members = 1 + int(now) % 7


def rotated(worker: Worker, now: float) -> None:
    worker.tail.bytes_read = 100 if now < 1005 else 0


@pytest.mark.parametrize("act", [logging, computing, downloading, forking])
async def test_progress_of_any_kind_is_progress(clock: Clock, act: Callable[[Worker, float], None]) -> None:
    assert await stalled_after(clock, act) is None


async def test_the_progress_of_parts_elsewhere_counts(clock: Clock) -> None:
    watch = StallWatch(Worker(clock, silent), STALL_S, lambda: int(clock.now / 5))  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await watch.run()


async def test_silence_is_a_stall(clock: Clock) -> None:
    after = await stalled_after(clock, silent)
    assert after is not None
    assert STALL_S < after <= STALL_S + 1


async def test_an_event_loop_that_idles_is_no_progress(clock: Clock) -> None:
    assert await stalled_after(clock, heartbeat) is not None


async def test_the_clock_begins_again_with_each_sign_of_life(clock: Clock) -> None:
    after = await stalled_after(clock, rotated)
    assert after is not None
    assert STALL_S + 5 < after <= STALL_S + 7


async def test_gpu_memory_is_a_sign_of_life(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "_gpu_memory", lambda process: clock.now)
    assert await stalled_after(clock, silent) is None


async def test_the_error_says_what_was_watched(clock: Clock) -> None:
    with pytest.raises(ReadyTimeout) as caught:
        await StallWatch(Worker(clock, silent), STALL_S).run()  # type: ignore[arg-type]
    assert caught.value.cause == "decode-0 made no progress for 10 s (loading weights)"
    assert caught.value.exit_code == 124
    assert caught.value.tail == ("last line",)
    assert "ready.stall" in (caught.value.fix or "")
