"""What is tried again after a leg failed, and how often: pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

Reason = Literal["connect", "closed", "stale", "timeout", "protocol", "withdrawn", "kv_lost", "engine_error"]
"""Why a leg failed.

connect: no connection came about · closed: it closed before an answer · stale: so did a pooled connection, perhaps
before the request was read · timeout: nothing came in time · protocol: what came was not HTTP, or not JSON · withdrawn:
the worker went out of service · kv_lost: its KV cache was to come from a node that is lost · engine_error: the engine
answered 5xx, or with an error event before all content.
"""

MAX_PREFILLS = 2
"""Prefill workers that may fail one request; then decode serves it alone."""
MAX_ANSWERS = 3
"""Legs that answer, in all."""
MAX_SILENT = 2
"""Of these, legs whose worker ended without an answer: the request itself may be what kills it."""


class RetryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`ratio`: retries per request in the long run · `burst`: retries that may come at once, as when a worker dies."""

    ratio: float = 0.2
    burst: float = 64.0


class Bucket(Protocol):
    """Its first item is the number of retries that may be made now."""

    def __getitem__(self, place: int, /) -> float:
        """Read it."""

    def __setitem__(self, place: int, value: float, /) -> None:
        """Write it."""


class Budget:
    """A token bucket: each request puts `ratio` of a token in, each retry takes one; it starts full.

    So an outage in which every leg fails adds `ratio` to the load, and not once or twice the load. `bucket`: its one
    number, where several processes share it; two that change it at the same moment may lose one of the changes.
    """

    def __init__(self, limits: RetryLimits | None = None, bucket: Bucket | None = None) -> None:
        self.limits = limits or RetryLimits()
        self._bucket: Bucket = [self.limits.burst] if bucket is None else bucket

    @property
    def tokens(self) -> float:
        """Retries that may be made now."""
        return self._bucket[0]

    def earn(self) -> None:
        """A request came."""
        self._bucket[0] = min(self.limits.burst, self._bucket[0] + self.limits.ratio)

    def spend(self) -> bool:
        """Whether a retry may be made; it is counted."""
        if self._bucket[0] < 1:
            return False
        self._bucket[0] -= 1
        return True


@dataclass
class Trail:
    """What one request has been through. Workers by id."""

    prefills: list[str] = field(default_factory=list)
    """Prefill workers not to be asked again: their leg failed, or decode could not use their KV cache."""
    lost: bool = False
    """A KV cache could not be used."""
    answers: list[str] = field(default_factory=list)
    """Workers whose answering leg failed."""
    silent: int = 0
    same: bool = False
    """The worker that failed last may be asked again where there is no other."""

    @property
    def last(self) -> bool:
        """Whether the next answering leg is the last one that may be tried."""
        return len(self.answers) + 1 >= MAX_ANSWERS


def after_prefill(
    trail: Trail, worker: str, status: int | None, *, others: bool, spend: Callable[[], bool]
) -> Literal["client", "again", "alone"]:
    """A prefill leg failed: the client is told, another prefill is asked, or decode serves alone.

    `others`: a prefill that was not tried is ready. Decode alone is always free: a lost prefill pool fails no request.
    """
    if status is not None and 400 <= status < 500:
        return "client"
    trail.prefills.append(worker)
    if len(trail.prefills) >= MAX_PREFILLS or not others or not spend():
        return "alone"
    return "again"


def after_answer(
    trail: Trail,
    worker: str,
    reason: Reason,
    *,
    prefill: str | None,
    prefill_serves: bool,
    others: bool,
    spend: Callable[[], bool],
) -> Literal["again", "give up", "no budget"]:
    """The answering leg failed before anything was sent to the client. `prefill`: who made the KV cache it was given.

    `prefill_serves`: that worker is still in service. `others`: a worker that has not failed this request is ready.
    Another attempt always begins with a new prefill leg: the old parameters may name blocks that were freed.
    """
    repeated = worker in trail.answers
    trail.answers.append(worker)
    trail.silent += reason in ("closed", "stale")
    blame_kv = reason in ("engine_error", "kv_lost") and prefill is not None
    trail.same = blame_kv or (reason == "stale" and not repeated)
    if blame_kv and (not prefill_serves or not others):
        trail.lost = True
        trail.prefills.append(prefill or "")
    if len(trail.answers) >= MAX_ANSWERS or trail.silent >= MAX_SILENT or not (others or trail.same):
        return "give up"
    if blame_kv and not prefill_serves:
        return "again"  # decode did no work for it yet, and the dead prefill does none: the load does not grow
    return "again" if spend() else "no budget"
