"""When processes ended, by the kernel's own word: a pidfd on each."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterable

HEARD_MS = 50.0
"""So late, at most, the test's own thread hears of an end on a busy machine."""


class Ends:
    """Watches these processes, in a thread of its own, until all of them have ended or `longest_s` have passed."""

    def __init__(self, pids: Iterable[int], longest_s: float) -> None:
        self._at: dict[int, float] = {}
        self._until = time.monotonic() + longest_s
        self._watched: dict[int, int] = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                self._watched[os.pidfd_open(pid)] = pid
        threading.Thread(target=self._watch, daemon=True).start()

    def first(self) -> float | None:
        """When the first of them ended (seconds since 1970)."""
        return min(self._at.values(), default=None)

    def _watch(self) -> None:
        poll = select.poll()
        for descriptor in self._watched:
            poll.register(descriptor, select.POLLIN)
        while self._watched and (left_s := self._until - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left_s * 1000):
                self._at[self._watched.pop(descriptor)] = time.time()
                poll.unregister(descriptor)
                os.close(descriptor)
        for descriptor in self._watched:
            os.close(descriptor)


def noticed_late_ms(signal_at: float, ended_at: float | None, noticed_at: float) -> tuple[float, str]:
    """How long after the first end it was noticed, and in words how long the dying took. All in seconds since 1970.

    A process may take seconds to end after a signal. What is noticed before any end was noticed by other signs (no
    answer), or in the instant between the end and the moment when the test itself heard of it: that is 0.
    """
    if ended_at is None:
        return (noticed_at - signal_at) * 1000, "none of its processes ended"
    took_ms = (ended_at - signal_at) * 1000
    said = f"its first process ended {took_ms:.0f} ms after the signal"
    if (early_ms := (ended_at - noticed_at) * 1000) > HEARD_MS:
        said += f", and was noticed {early_ms:.0f} ms before that"
    return max(0.0, (noticed_at - ended_at) * 1000), said
