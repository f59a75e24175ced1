"""A run's transport from its pairs: the verdict of the worst, the rate of the slowest."""

from __future__ import annotations

from collections.abc import Sequence

from dynctl.fabric.verdict import worst
from dynctl.telemetry.status import PairStatus, TransportStatus


def run_transport(required: str, pairs: Sequence[PairStatus]) -> TransportStatus:
    """The run's own line; `unknown` before any pair is proven."""
    if not pairs:
        return TransportStatus(required=required)
    verdict = worst([pair.verdict for pair in pairs])
    rates = [pair.gigabytes_per_s for pair in pairs if pair.gigabytes_per_s is not None]
    evidence = next(pair.evidence for pair in pairs if pair.verdict == verdict)
    return TransportStatus(
        required=required,
        verdict=verdict,
        gigabytes_per_s=min(rates) if rates else None,
        evidence=evidence,
        pairs=tuple(pairs),
    )
