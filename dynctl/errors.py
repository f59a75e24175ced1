"""Errors a user can act on: cause, place, why, fix, and the exit code that scripts rely on."""

from __future__ import annotations

from collections.abc import Sequence


class DynctlError(Exception):
    """What went wrong (`cause`), where, why, what to do (`fix`), and the culprit's last log lines (`tail`)."""

    exit_code = 1

    def __init__(
        self,
        cause: str,
        *,
        where: str | None = None,
        why: str | Sequence[str] | None = None,
        fix: str | None = None,
        tail: Sequence[str] = (),
    ) -> None:
        super().__init__(cause)
        self.cause = cause
        self.where = where
        self.why = (why,) if isinstance(why, str) else tuple(why or ())
        self.fix = fix
        self.tail = tuple(tail)

    def lines(self) -> list[str]:
        """The error as it is printed: an `error:` line, then `at`, `why` and `fix` lines, then the log tail."""
        out = [f"error: {self.cause}"]
        if self.where:
            out.append(f"  at  {self.where}")
        out += [f"  why {reason}" for reason in self.why]
        if self.fix:
            out.append(f"  fix {self.fix}")
        out += [f"  | {line}" for line in self.tail]
        return out


class RuntimeFailure(DynctlError):
    """Something that was started failed, a verification failed, or a process could not be ended."""

    exit_code = 1


class UsageError(DynctlError):
    """The command line or a file is wrong; nothing was started."""

    exit_code = 2


class HostError(DynctlError):
    """The input is right but this host can't do it: too few GPUs, no driver, no engine."""

    exit_code = 3


class TransportError(DynctlError):
    """The KV path is slower than required, or can't be established."""

    exit_code = 4


class RunStateError(DynctlError):
    """The run is not running, or is running already."""

    exit_code = 5


class ReadyTimeout(DynctlError):
    """The run did not become ready in time, or stopped making progress."""

    exit_code = 124
