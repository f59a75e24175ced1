"""What a worker's log told so far, as a value: it is asked for across nodes. Pure."""

from __future__ import annotations

import msgspec

from dynctl.engines.spec import LogCause
from dynctl.fabric.ucx_log import UcxSaid


class LogSeen(msgspec.Struct, frozen=True, kw_only=True):
    """UCX's part of the log, the cause of a death if one was read, and the last lines."""

    ucx: UcxSaid = UcxSaid()
    cause: LogCause | None = None
    tail: tuple[str, ...] = ()
