"""What `/health` says: pure."""

from __future__ import annotations

from typing import Literal

import msgspec

NO_PREFILL = "no prefill worker is ready: decode serves alone"
NO_DECODE = "no decode worker is ready"
NO_WORKER = "no worker is ready"
NOT_TOLD = "the supervisor has not yet said which workers there are"


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """ok: served as planned · degraded: served, but not as planned · down: no request could be served."""

    status: Literal["ok", "degraded", "down"]
    reason: str | None = None


def assess(*, known: bool, ready: dict[str, int], prefill_expected: bool, aggregated: bool) -> Health:
    """Health from the number of ready workers by role."""
    if not known:
        return Health(status="down", reason=NOT_TOLD)
    if aggregated:
        return Health(status="ok") if ready["worker"] else Health(status="down", reason=NO_WORKER)
    if not ready["decode"]:
        return Health(status="down", reason=NO_DECODE)
    if prefill_expected and not ready["prefill"]:
        return Health(status="degraded", reason=NO_PREFILL)
    return Health(status="ok")
