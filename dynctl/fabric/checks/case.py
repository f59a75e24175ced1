"""What a rule is given, what it answers, and how rules are put in order. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from dynctl.fabric.checks.values import Device, Need, Observed, PciFunction, Port, Since, WorkerNeed
from dynctl.fabric.report import Check, CheckStatus

HOST = "host"


class Case(NamedTuple):
    """All that is known: the node, what the plan needs of it, and an earlier look at it."""

    observed: Observed
    need: Need
    since: Since | None = None

    def grade(self, device: str | None = None) -> CheckStatus:
        """`fail` where the required path is RDMA and may use this device, else `warn`."""
        return "fail" if self.need.rdma and (device is None or self.need.uses(device)) else "warn"


class Finding(NamedTuple):
    """A rule's answer for one target."""

    status: CheckStatus
    observed: str | None = None
    expected: str | None = None
    cause: str | None = None
    fix: str | None = None

    @property
    def red(self) -> bool:
        """Whether what depends on it can't be judged."""
        return self.status in ("warn", "fail")

    def row(self, name: str, target: str) -> Check:
        """The answer as a row of the report."""
        return Check(id=name, target=target, **self._asdict())


class Subject(NamedTuple):
    """What a rule is asked about; which of the values are there depends on the rule's scope."""

    name: str
    device: Device | None = None
    port: Port | None = None
    function: PciFunction | None = None
    worker: WorkerNeed | None = None


Scope = Literal["host", "device", "port", "gpu", "worker"]
Judge = Callable[[Case, Subject], Finding]


class Rule(NamedTuple):
    """A row's id, what it is asked about, the rows that must not be red before, and the rule itself."""

    id: str
    scope: Scope
    judge: Judge
    after: tuple[str, ...] = ()


def ok(observed: str | None = None, expected: str | None = None) -> Finding:
    """As it should be, or a fact worth showing."""
    return Finding("pass", observed, expected)


def skip(reason: str, observed: str | None = None) -> Finding:
    """It does not apply, or can't be told here."""
    return Finding("skip", observed, cause=reason)


def because(rule: str) -> Finding:
    """Not judged, as another row is red."""
    return skip(f"because {rule}")
