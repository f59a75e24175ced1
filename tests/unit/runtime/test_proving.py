"""What a run's proving keeps for the status."""

from __future__ import annotations

from typing import cast

from dynctl.plan.values import Plan, PlannedPair, PlannedTransport, ReadyRules
from dynctl.runtime.proving import Proving
from dynctl.store.log import EventLog
from dynctl.telemetry.status import PairStatus


def test_pairs_are_shown_in_the_plans_order_whichever_was_proven_first() -> None:
    pairs = [
        PlannedPair(from_=prefill, to="decode-0", path="shm", floor="tcp", reason="one host")
        for prefill in ("prefill-0", "prefill-1", "prefill-2")
    ]
    plan = Plan(
        name="run",
        served_name="m",
        model="m",
        engine="vllm",
        run_dir="/r",
        frontend_url="http://127.0.0.1:8000",
        processes=(),
        transport=PlannedTransport(required="auto", pairs=tuple(pairs)),
        ready=ReadyRules(timeout_s=1.0, stall_s=1.0),
    )
    proving = Proving(plan, "token", {}, cast(EventLog, None))
    for late in ("prefill-2", "prefill-0"):
        proving.pairs[late, "decode-0"] = PairStatus(from_=late, to="decode-0")
    assert [pair.from_ for pair in proving.proven()] == ["prefill-0", "prefill-2"]
