"""Deadlines of the legs under way, and which of them a worker that goes out of service takes along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from dynctl.http.call import Call, ClientError

_SWEEP_S = 1.0
_DOWN_GRACE_S = 5.0
"""How long an answer that has begun may stand still once its worker is out of service."""
_KV_RECENT_S = 20.0
"""What was handed over longer ago has its KV; an answer that comes as a whole does not show it."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; None waits for as long as the client does.

    prefill_s: until leg one's whole reply · first_s: until the first bytes of a streamed answer · whole_s: until those
    of any other, which engines send when they have all of it · stall_s: between two reads of an answer that has begun
    · kv_s: for a KV cache on its way from a node that is lost.
    """

    prefill_s: float | None = 300.0
    first_s: float | None = 300.0
    whole_s: float | None = 1800.0
    stall_s: float | None = 120.0
    kv_s: float = 5.0


class Moving(Protocol):
    """An answer that is watched. `moved` is set by each read and cleared here; `held_up`: its client reads slowly."""

    begun: bool
    moved: bool

    @property
    def resumable(self) -> bool:
        """Whether another worker could carry it on."""

    @property
    def held_up(self) -> bool:
        """Whether it is the client that keeps the answer from moving."""


class Kv(NamedTuple):
    """A KV cache that was handed over: by which worker, and whether the answer is streamed, so shows that it came."""

    source: str
    streamed: bool


class Watched:
    """One leg. `answer` is None for a leg that is gathered whole. `directed`: it may go nowhere else.

    `kv`: what it was handed over; `kv_lost`: that may never come.
    """

    __slots__ = ("answer", "call", "deadline", "directed", "kv", "kv_lost", "limit_s", "sent_at", "stall_s", "worker")

    def __init__(
        self,
        worker: str,
        call: Call,
        answer: Moving | None,
        *,
        sent_at: float,
        kv: Kv | None,
        deadline: float | None,
        limit_s: float | None,
        stall_s: float | None,
        directed: bool,
    ) -> None:
        self.worker = worker
        self.call = call
        self.answer = answer
        self.deadline = deadline
        self.limit_s = limit_s
        self.stall_s = stall_s
        self.directed = directed
        self.sent_at = sent_at
        self.kv = kv
        self.kv_lost = False


class Watch:
    """One sweep over all legs, once a second or more often where a limit is short: a read costs no timer.

    A deadline is therefore kept to within one sweep.
    """

    def __init__(self, clock: Callable[[], float], timeouts: Timeouts) -> None:
        self._clock = clock
        self._stall_s, self._kv_s = timeouts.stall_s, timeouts.kv_s
        limits = (timeouts.prefill_s, timeouts.first_s, timeouts.whole_s, timeouts.stall_s, timeouts.kv_s)
        self._every_s = min([_SWEEP_S, *(limit / 4 for limit in limits if limit is not None)])
        self._legs: dict[str, set[Watched]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(
        self,
        worker: str,
        call: Call,
        limit_s: float | None,
        answer: Moving | None = None,
        *,
        directed: bool = False,
        kv: Kv | None = None,
    ) -> Watched:
        """A leg was sent: its reply, or the first bytes of its answer, must come within `limit_s`."""
        now = self._clock()
        deadline = None if limit_s is None else now + limit_s
        watched = Watched(
            *(worker, call, answer),
            sent_at=now,
            kv=kv,
            deadline=deadline,
            limit_s=limit_s,
            stall_s=self._stall_s,
            directed=directed,
        )
        self._legs.setdefault(worker, set()).add(watched)
        if self._timer is None:
            self._arm()
        return watched

    def drop(self, watched: Watched) -> None:
        """A leg is over."""
        self._legs.get(watched.worker, set()).discard(watched)

    def withdraw(self, worker: str, why: str, *, directed: bool) -> None:
        """Legs of that worker that have not begun to answer fail at once; directed ones only if `directed`."""
        for watched in tuple(self._legs.get(worker, ())):
            if (directed or not watched.directed) and (watched.answer is None or not watched.answer.begun):
                watched.call.fail(ClientError("withdrawn", why))

    def hasten(self, worker: str, *, resumable: bool = False) -> None:
        """Answers of that worker that have begun may stand still for a few seconds at most; `resumable`: only those
        that can go on elsewhere."""
        for watched in self._legs.get(worker, ()):
            if resumable and (watched.answer is None or not watched.answer.resumable):
                continue
            if watched.stall_s is None or watched.stall_s > _DOWN_GRACE_S:
                watched.stall_s = watched.limit_s = _DOWN_GRACE_S
                watched.deadline = self._clock() + _DOWN_GRACE_S

    def lose_source(self, worker: str) -> None:
        """KV that was to come from that worker may never come: legs that may wait for it get a few seconds more.

        A transfer over TCP notices a cut link after minutes only (net.ipv4.tcp_retries2).
        """
        now = self._clock()
        for watched in (leg for legs in self._legs.values() for leg in legs):
            kv, answer = watched.kv, watched.answer
            if kv is None or kv.source != worker or watched.kv_lost or answer is None or answer.begun:
                continue
            if kv.streamed or now - watched.sent_at < _KV_RECENT_S:
                watched.kv_lost = True
                watched.limit_s, watched.deadline = self._kv_s, now + self._kv_s

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._sweep)

    def _sweep(self) -> None:
        now = self._clock()
        for worker, legs in tuple(self._legs.items()):
            for watched in tuple(legs):
                self._look(watched, now)
            if not legs:
                self._legs.pop(worker, None)
        self._timer = None
        if self._legs:
            self._arm()

    def _look(self, watched: Watched, now: float) -> None:
        answer = watched.answer
        if answer is not None and answer.begun and (answer.moved or answer.held_up):
            answer.moved = False
            watched.limit_s = watched.stall_s
            watched.deadline = None if watched.stall_s is None else now + watched.stall_s
        elif watched.deadline is not None and watched.deadline <= now:
            told = "nothing more came" if answer is not None and answer.begun else "no answer"
            watched.call.fail(ClientError("timeout", f"{told} within {watched.limit_s:g} s"))
