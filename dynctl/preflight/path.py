"""The KV path before any engine starts: a quick NIXL transfer for every pair, held against its floor."""

from __future__ import annotations

import time
from collections.abc import Callable

from dynctl.errors import HostError, TransportError
from dynctl.fabric.probe.ends import Transfer
from dynctl.fabric.probe.judge import Judged
from dynctl.fabric.verdict import worst
from dynctl.hardware.values import Hardware
from dynctl.plan.values import Plan, pairs_to_prove

NO_ENGINE = ("no-python", "no-nixl", "no-ucx")
UNTOLD = ("not-nixl", "memory")
"""Failures that say nothing of the path: the run's own proof will."""
SKIP = "--no-preflight starts the engines without it"


def check_path(plan: Plan, hardware: Hardware, say: Callable[[str], None]) -> str | None:
    """What the preflight found of this node's pairs, in a line; None where there is nothing to prove.

    `say` is told before it begins.
    TransportError when a pair's floor is not met or its transfer fails; HostError when the engine's interpreter has no
    NIXL that loads. What does not tell of the path is only said: a NIXL that the probe does not know, memory it did not
    get, a path that UCX does not name where any will do.
    """
    here = {process.id for process in plan.own()}
    pairs = pairs_to_prove(tuple(pair for pair in plan.transport.pairs if {pair.from_, pair.to} <= here))
    if not pairs or plan.simulated or plan.transport.backend != "ucx":
        return None
    from dynctl.fabric.probe.prove import prove_quickly

    begin = time.monotonic()
    say(f"preflight: proving the KV path of {len(pairs)} pair{'s' * (len(pairs) > 1)}")
    proven = prove_quickly(plan, hardware, pairs)
    for transfer, one in proven:
        if one.failure and one.failure.kind in UNTOLD:
            return f"preflight: {transfer.pair} not proven: {one.report.error}"
        if one.check.status == "fail" and one.report.fraction_of_line_rate is None:
            raise _error(plan, transfer, one)
    if not proven:
        return None
    reports = [one.report for _, one in proven]
    rate = min(report.gigabytes_per_s or 0.0 for report in reports)
    reached = worst(report.verdict for report in reports)
    return f"preflight: KV goes over {reached}, {rate:.1f} GB/s or more ({time.monotonic() - begin:.1f} s)"


def _error(plan: Plan, transfer: Transfer, one: Judged) -> HostError | TransportError:
    why = [one.report.error] if one.report.error else [one.check.cause or ""]
    why += [f"{item.source}: {item.line}" for item in one.report.evidence if item.kind != "lane"]
    if one.failure and one.failure.kind in NO_ENGINE:
        where = f"python: {transfer.target.python}"
        return HostError("the engine's NIXL does not load", where=where, why=why, fix=one.report.fix)
    if one.failure:
        return TransportError(
            f"{transfer.pair}: the KV path can't be proven",
            where=f"transport.require: {plan.transport.required}",
            why=why,
            fix=one.report.fix or SKIP,
        )
    return TransportError(
        f"{transfer.pair} goes over {one.report.verdict}; {transfer.floor} is required",
        where=f"transport.require: {plan.transport.required}",
        why=why,
        fix=one.check.fix,
    )
