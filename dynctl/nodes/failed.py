"""An error on its way to where its user is: over the control socket, or to another node. Pure."""

from __future__ import annotations

import msgspec

from dynctl.errors import DynctlError


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed", tag_field="op"):
    """The run failed; the error as its user should see it."""

    exit_code: int
    cause: str
    where: str | None = None
    why: tuple[str, ...] = ()
    fix: str | None = None
    tail: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: DynctlError) -> Failed:
        """That error, ready for the wire."""
        return cls(
            exit_code=error.exit_code,
            cause=error.cause,
            where=error.where,
            why=error.why,
            fix=error.fix,
            tail=error.tail,
        )

    def error(self) -> DynctlError:
        """The error again, on the other side of the wire."""
        error = DynctlError(self.cause, where=self.where, why=self.why, fix=self.fix, tail=self.tail)
        error.exit_code = self.exit_code
        return error
