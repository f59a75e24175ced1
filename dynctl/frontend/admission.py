"""How many requests may be with the engines at once; the others wait here, in fair order and not for ever."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dynctl.frontend.errors import Failure
from dynctl.frontend.fair import FairQueue
from dynctl.frontend.places import Places
from dynctl.http.message import Headers

_RECENT = 64
"""Ends of requests by which the wait is estimated."""
_LONGEST_RETRY_S = 60
_LOOK_S = 0.05
"""Between looks for a place while some wait: another process may have died with it, or with the turn."""


class AdmissionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`running`: requests with the engines at once · `queue`: those that may wait · `wait_s`: and for how long."""

    running: int
    queue: int = 256
    wait_s: float = 30.0


class Admission:
    """Each request enters and leaves. `clock` is monotonic, in seconds. `places`: those of several processes.

    A request that finds the queue full is refused with 429, one that waited too long with 503, both with Retry-After:
    the time after which, at the present rate, those that wait now will have begun.
    """

    def __init__(self, limits: AdmissionLimits, clock: Callable[[], float], places: Places | None = None) -> None:
        self.limits = limits
        self._clock = clock
        self._places = places or Places(limits.running)
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._ends: deque[float] = deque(maxlen=_RECENT)
        self._refused: Counter[str] = Counter()
        self._looking: asyncio.TimerHandle | None = None
        self._patient = True

    @property
    def running(self) -> int:
        """Requests of this process that have entered and not left."""
        return self._places.held

    async def enter(self, tenant: bytes) -> None:
        """Return when the request may go on. Raises Failure."""
        if not len(self._queue) and not self._places.others_turn() and self._places.take():
            return
        if self._places.waiting(len(self._queue)) >= self.limits.queue:
            self._refused["queue_full"] += 1
            raise Failure(429, "too many requests are waiting", code="queue_full", headers=self._retry_after())
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._queue.put(tenant, turn)
        self._counted()
        timer = loop.call_later(self.limits.wait_s, self._give_up, tenant, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if self._queue.remove(tenant, turn):
                self._counted()
            elif not turn.cancelled() and turn.exception() is None:
                self.leave()  # it was let in as its client left
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """A request that had entered is over: the next one's turn."""
        self._ends.append(self._clock())
        self._places.give()
        self._let_in()
        self._places.pass_on()

    def look(self) -> None:
        """Another process has left a place free, and it may be this one's turn."""
        if self._let_in():
            self._places.pass_on()

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        yield GaugeMetricFamily("dynctl_requests_waiting", "Requests that wait to be admitted", value=len(self._queue))
        refused = CounterMetricFamily("dynctl_refused_requests", "Requests not admitted", labels=["reason"])
        for reason, count in self._refused.items():
            refused.add_metric([reason], count)
        yield refused

    def _give_up(self, tenant: bytes, turn: asyncio.Future[None]) -> None:
        if not self._queue.remove(tenant, turn):
            return
        self._counted()
        self._refused["queue_timeout"] += 1
        why = f"no turn came within {self.limits.wait_s:g} s"
        turn.set_exception(Failure(503, why, code="queue_timeout", headers=self._retry_after()))

    def _let_in(self) -> bool:
        """Whether any of those that wait had a place, and this process the turn."""
        served = False
        while len(self._queue) and not (self._patient and self._places.others_turn()) and self._places.take():
            turn = self._queue.take()
            while turn is not None and turn.done():  # its client has just left
                turn = self._queue.take()
            if turn is None:
                self._places.give()
                break
            turn.set_result(None)
            self._places.served()
            self._patient = served = True
        self._counted()
        return served

    def _counted(self) -> None:
        """The others are to know how many wait here; who waits is looked after."""
        waiting = len(self._queue)
        self._places.waiting(waiting)
        if waiting and self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look_again)
        elif not waiting and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look_again(self) -> None:
        """A place that is left to another process for a whole interval is taken here after all: that one may hang."""
        self._looking = None
        self.look()
        self._patient = not (len(self._queue) and self._places.free())

    def _retry_after(self) -> Headers:
        seconds = retry_after_s(len(self._queue), self._ends, self._clock())
        return [(b"retry-after", b"%d" % seconds)]


def retry_after_s(waiting: int, ends: deque[float], now: float) -> int:
    """Seconds after which `waiting` more requests will have begun, at the rate of these ends; at least 1."""
    if len(ends) < 2:
        return 1
    rate = len(ends) / max(now - ends[0], 1e-3)
    return max(1, min(_LONGEST_RETRY_S, math.ceil((waiting + 1) / rate)))
