"""The router's table of workers: who may get requests, and what that says about its health."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from dynctl.frontend.ask import NOTHING, Ask
from dynctl.frontend.chooser import Chooser
from dynctl.frontend.health import Health, assess
from dynctl.frontend.messages import WorkerTable
from dynctl.frontend.routing import Worker
from dynctl.http.origin import parse_origin

_SUSPECT_S = 2.0


class Workers:
    """The latest table. `expected` counts the planned workers by role.

    A worker that just failed to answer is avoided for two seconds where there is another, until the table says more.
    `tell` hears of workers that failed (True), and of those that answer again (False).
    """

    def __init__(
        self,
        chooser: Chooser | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[str, bool], None] | None = None,
    ) -> None:
        self.chooser = chooser or Chooser()
        self._tell = tell
        self._clock = clock
        self._suspects: dict[str, float] = {}
        self._by_id: dict[str, Worker] = {}
        self._ready: dict[str, tuple[Worker, ...]] = {}
        self._expects: frozenset[str] = frozenset()
        self.expected: dict[str, int] = {}
        self.known = False

    def update(self, table: WorkerTable) -> list[Worker]:
        """Take a new table; returns the workers that went out of service with it (down, or no longer named)."""
        before = self._by_id
        self._by_id = {
            entry.id: Worker(id=entry.id, role=entry.role, origin=parse_origin(entry.url), state=entry.state)
            for entry in table.workers
        }
        self._ready = {
            role: tuple(w for w in self._by_id.values() if w.role == role and w.state == "ready")
            for role in ("prefill", "decode", "worker")
        }
        self.expected = dict(table.expected)
        planned = (role for role, count in table.expected.items() if count)
        self._expects = frozenset((*planned, *(entry.role for entry in table.workers)))
        self.known = True
        gone = []
        for worker_id, old in before.items():
            new = self._by_id.get(worker_id)
            if new is None or new.origin != old.origin or (new.state == "down" and old.state != "down"):
                gone.append(old)
                self.chooser.gone(old)
                self._suspects.pop(worker_id, None)
        return gone

    def get(self, worker_id: str) -> Worker | None:
        """The worker of that id, whatever its state."""
        return self._by_id.get(worker_id)

    def all(self) -> tuple[Worker, ...]:
        """Every worker of the table."""
        return tuple(self._by_id.values())

    def ready(self, role: str) -> tuple[Worker, ...]:
        """The workers of a role that take requests."""
        return self._ready.get(role, ())

    def pick(self, role: str, exclude: Collection[str] = (), ask: Ask = NOTHING) -> Worker | None:
        """The worker of a role for a request; None when there is none besides the excluded ones."""
        candidates = self.ready(role)
        if exclude:
            candidates = tuple(w for w in candidates if w.id not in exclude)
        if self._suspects:
            now = self._clock()
            trusted = tuple(w for w in candidates if self._suspects.get(w.id, now) <= now)
            candidates = trusted or candidates
        return self.chooser.choose(role, candidates, ask)

    def suspect(self, worker: Worker) -> None:
        """The worker did not answer."""
        self.doubt(worker.id, True)
        if self._tell is not None:
            self._tell(worker.id, True)

    def trust(self, worker: Worker) -> None:
        """The worker answered."""
        if self._suspects and self._suspects.pop(worker.id, None) is not None and self._tell is not None:
            self._tell(worker.id, False)

    def doubt(self, worker_id: str, failed: bool) -> None:
        """A worker did not answer, or answers again, as another process has found, too."""
        if failed:
            self._suspects[worker_id] = self._clock() + _SUSPECT_S
        else:
            self._suspects.pop(worker_id, None)

    def expects(self, role: str) -> bool:
        """Whether workers of that role are planned or known."""
        return role in self._expects

    def alone_role(self) -> str:
        """The role that serves requests whole: decode, or worker where that is all there is."""
        return "decode" if self.ready("decode") or not self.expects("worker") else "worker"

    def health(self) -> Health:
        """What can be served now."""
        return assess(
            known=self.known,
            ready={role: len(self.ready(role)) for role in ("prefill", "decode", "worker")},
            prefill_expected=self.expects("prefill"),
            aggregated=self.alone_role() == "worker",
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Ready and expected workers by role, of the roles that there are."""
        return {
            role: {"ready": len(self.ready(role)), "expected": self.expected.get(role, len(self.ready(role)))}
            for role in ("prefill", "decode", "worker")
            if self.expects(role)
        }
