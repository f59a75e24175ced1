"""What the supervisor has not been told yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable

import msgspec

from dynctl.frontend.busy import Busy
from dynctl.frontend.messages import Report, RequestRecord
from dynctl.frontend.metrics import Metrics
from dynctl.frontend.workers import Workers

_MAX_RECORDS = 10_000
_MAX_RECORDS_PER_REPORT = 1_000


class Outbox:
    """Finished requests, and the totals as last reported. While nobody listens the oldest records are dropped."""

    def __init__(self, workers: Workers, metrics: Metrics, busy: Busy) -> None:
        self._workers = workers
        self._metrics = metrics
        self._busy = busy
        self._records: deque[RequestRecord] = deque(maxlen=_MAX_RECORDS)
        self._last: Report | None = None
        self.leaving = False
        self.others: Callable[[], Iterable[Report]] = tuple
        """The totals of the frontend's other processes, which go into the same reports."""

    @property
    def in_flight(self) -> int:
        """Requests under way in all processes."""
        return self._metrics.in_flight + sum(other.in_flight for other in self.others())

    def add(self, record: RequestRecord) -> None:
        """A request finished."""
        self._records.append(record)

    def take(self) -> Report | None:
        """The next report, or None when nothing changed since the last."""
        health = self._workers.health()
        others = tuple(self.others())
        busy = Counter(self._busy.counts())
        for other in others:
            busy.update(other.busy)
        totals = Report(
            in_flight=self.in_flight,
            busy=dict(busy),
            leaving=self.leaving,
            requests_total=self._metrics.requests_total + sum(other.requests_total for other in others),
            errors_total=self._metrics.errors_total + sum(other.errors_total for other in others),
            health=health.status,
            reason=health.reason,
        )
        if not self._records and totals == self._last:
            return None
        self._last = totals
        requests = tuple(self._records.popleft() for _ in range(min(len(self._records), _MAX_RECORDS_PER_REPORT)))
        return msgspec.structs.replace(totals, requests=requests)

    def put_back(self, report: Report) -> None:
        """A report did not get through: its requests go out with the next one."""
        room = _MAX_RECORDS - len(self._records)
        self._records.extendleft(reversed(report.requests[-room:] if room else ()))
        self._last = None

    def reset(self) -> None:
        """Whoever listens now has not heard anything yet: report the totals anew."""
        self._last = None
