"""The nouns of the matrix: a fault, what must hold under it, and what was seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.chaos.load import CLEAN, HUNG, SERVED, UNCLEAN, Tally
from tests.chaos.world import World

Lost = Literal["none", "begun", "any"]
"""Which requests may fail: none; those that had their first token, each with a clean error; any, each cleanly."""
End = Literal["heals", "ends", "again", "adopted"]
"""heals by itself; the run ends, orderly; is dead, and `up NAME` starts it again; `up NAME` adopts it unchanged."""
ORDER: tuple[Lost, ...] = ("none", "begun", "any")


@dataclass(frozen=True)
class Fault:
    """`harm` is done under load and undone by `mend` after `hold_s`. `notice_ms`: within which it must be noticed."""

    name: str
    target: str
    harm: Callable[[World], None]
    lost: Lost
    mend: Callable[[World], None] | None = None
    hold_s: float = 0.0
    notice_ms: float | None = None
    notice_periods: int | None = None
    """As notice_ms, in canary periods."""
    from_end: bool = False
    """It takes its time to end (a large process even by SIGKILL): noticed in time counts from the first end of one of
    the processes without which it can't serve, not from the signal."""
    end: End = "heals"
    real: bool = False
    """Also done to real engines."""
    skip: Callable[[], str | None] = lambda: None

    def limit_ms(self, canary_s: float) -> float | None:
        """Within which it must be noticed."""
        return self.notice_periods * canary_s * 1000 if self.notice_periods else self.notice_ms

    def expected(self, canary_s: float) -> str:
        """In words."""
        limit_ms = self.limit_ms(canary_s)
        lost = {"none": "0 failed", "begun": "only begun fail, cleanly", "any": "failures clean"}[self.lost]
        noticed = f", seen in {limit_ms:g} ms{' of its end' * self.from_end}" if limit_ms else ""
        return f"{lost}{noticed}, {self.end}"


@dataclass
class Seen:
    """What was seen under one fault. `problems`: what does not hold of what is expected."""

    fault: str
    expected: str
    tally: Tally = field(default_factory=Tally)
    orphans: int | None = None
    detection_ms: float | None = None
    recovery_s: float | None = None
    problems: list[str] = field(default_factory=list)
    skipped: str | None = None
    note: str = ""
    aside: str = ""
    """What is to be said of it besides."""

    @property
    def ok(self) -> bool:
        """As expected."""
        return not self.problems

    def judge_load(self, lost: Lost) -> None:
        """Adds what the requests' ends say."""
        tally = self.tally
        for kind in UNCLEAN:
            if tally.kinds[kind]:
                self.problems.append(f"{tally.kinds[kind]} {kind}")
        failed = tally.count(CLEAN)
        if lost == "none" and failed:
            self.problems.append(f"{failed} failed")
        if lost == "begun" and tally.early:
            self.problems.append(f"{tally.early} failed before their first token")
        if not tally.kinds[SERVED]:
            self.problems.append("nothing served")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "fault": self.fault,
            "expected": self.expected,
            "seen": self.seen(),
            "ok": self.ok,
            "skipped": self.skipped,
            "sent": self.tally.sent,
            "served": self.tally.kinds[SERVED],
            "failed_cleanly": self.tally.count(CLEAN),
            "hung": self.tally.kinds[HUNG],
            "orphans": self.orphans,
            "detection_ms": self.detection_ms,
            "recovery_s": self.recovery_s,
            "problems": self.problems,
            "examples": self.tally.examples,
        }

    def seen(self) -> str:
        """In words."""
        if self.skipped:
            return f"skipped: {self.skipped}"
        return "; ".join(filter(None, (*(self.problems or [self.note or "as expected"]), self.aside)))
