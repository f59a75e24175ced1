"""How many requests a round of a comparison has, where nobody said: so many that the answer takes minutes."""

from __future__ import annotations

import msgspec

from dynctl.bench.workload import Workload

ROUND_S = 30.0
"""No round of a comparison lasts much longer, unless its requests were counted by the user."""
FEWEST = 40
"""Fewer give a round no p90 worth the name."""


def trial(workload: Workload) -> Workload:
    """A few requests that count nowhere: they show the pace, and warm the target. Their prompts are their own."""
    few = 2 * workload.concurrency
    return msgspec.structs.replace(workload, requests=few, rounds=1, nonce=f"{workload.nonce}-pace")


def fitted(workload: Workload, requests_per_s: float) -> Workload:
    """The workload with as many requests a round as a target of this pace serves in ROUND_S: never more than before,
    nor fewer than FEWEST."""
    fit = max(FEWEST, round(requests_per_s * ROUND_S))
    return msgspec.structs.replace(workload, requests=min(workload.requests, fit))
