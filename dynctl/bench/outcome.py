"""From what was measured to what is said: one arm's result, the comparison, whether it is valid."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dynctl.bench.document import (
    ArmResult,
    KvFigures,
    Problem,
    Split,
    WorkerLoad,
    arm_metrics,
    errors,
)
from dynctl.bench.measure import Arm
from dynctl.bench.sample import ttft_ms
from dynctl.bench.summary import Summary
from dynctl.bench.validity import arm_notes, arm_problems, client_problems
from dynctl.frontend.messages import RequestRecord
from dynctl.telemetry.window import EngineWindow
from dynctl.telemetry.window import split as window_split


def load_words(arm: Arm) -> str:
    """`concurrency 8`, `4 req/s poisson`, `trace`."""
    workload = arm.workload
    if workload.trace:
        return "trace"
    if workload.open is not None:
        shape = f" {workload.open.burstiness:g}" if workload.open.kind == "gamma" else ""
        return f"{workload.open.rate:g} req/s {workload.open.kind}{shape}"
    return f"concurrency {workload.concurrency}"


def arm_result(arm: Arm, slo_ms: Mapping[str, float]) -> ArmResult:
    """All rounds of an arm put together."""
    target = arm.targets[-1]
    measured = [sample for part in arm.rounds for sample in part.measured]
    failed = errors(arm.rounds)
    return ArmResult(
        layout=arm.label,
        target=target.url,
        load=load_words(arm),
        gpus=target.gpus,
        workers=target.workers,
        start_ups=len({part.start_up for part in arm.rounds}),
        rounds=len(arm.rounds),
        requests=len(measured),
        failed=sum(failed.values()),
        errors=dict(failed.most_common(8)),
        metrics=arm_metrics(arm.rounds, slo_ms, target.gpus),
        split=_split(arm),
        kv=_kv(arm),
        worker_load=_load(_records(arm)),
    )


def findings(arms: Sequence[Arm], results: Sequence[ArmResult]) -> tuple[list[Problem], list[str]]:
    """What makes the result invalid, and what is worth knowing."""
    rounds = [part for arm in arms for part in arm.rounds]
    problems = list(client_problems([health for arm in arms for health in arm.healths], rounds))
    notes: list[str] = []
    for arm, result in zip(arms, results, strict=True):
        disaggregated = arm.targets[-1].disaggregated
        full = arm.workload.ignore_eos
        problems += arm_problems(result, arm.rounds, disaggregated=disaggregated, full=full)
        notes += arm_notes(result, arm.rounds, arm.ids)
        if arm.gave_up:
            why = f"{arm.label}: gave up after nothing but errors: {arm.gave_up}"
            problems.append(Problem(id="gave_up", what=why, fix="look at the target's logs"))
    return problems, notes


def _records(arm: Arm) -> list[RequestRecord]:
    ids = {sample.id for part in arm.rounds for sample in part.measured}
    return [record for name, record in arm.records.items() if name in ids]


def _split(arm: Arm) -> Split | None:
    """The frontend's records of the measured requests; None where there are none."""
    records = _records(arm)
    if not records:
        return None
    prefills = [window for role, window in arm.windows if role == "prefill"]
    decodes = [window for role, window in arm.windows if role in ("decode", "worker")]
    status = window_split(records, prefills or decodes, decodes, _movers(arm))
    client = statistics.median(v for part in arm.rounds for s in part.measured if (v := ttft_ms(s)) is not None)
    ttft = _median(record.ttft_ms for record in records)
    return Split(
        records=len(records),
        ttft=ttft,
        queue=_median(record.queue_ms for record in records),
        prefill=_median(record.prefill_ms for record in records),
        handover=_median(record.handover_ms for record in records),
        frontend_to_client=client - ttft if ttft is not None else None,
        window=status.window,
        modes=dict(Counter(record.mode for record in records)),
    )


def _movers(arm: Arm) -> list[EngineWindow]:
    plan = arm.targets[-1].plan
    mover = "decode" if plan is None or plan.transport.direction == "pull" else "prefill"
    return [window for role, window in arm.windows if role == mover]


def _kv(arm: Arm) -> KvFigures | None:
    """Growth of the movers' counters; None for layouts that move nothing."""
    if not arm.targets[-1].disaggregated:
        return None
    ends = [pair for window in _movers(arm) if (pair := window.ends())]
    transfers = sum(new.transfers - old.transfers for old, new in ends)
    moved = sum(new.kv_bytes - old.kv_bytes for old, new in ends)
    seconds = sum(new.transfer_s - old.transfer_s for old, new in ends)
    mean_ms = seconds / transfers * 1000 if transfers else None
    ttft = arm_metrics(arm.rounds, {}, 0)["ttft_ms"]
    return KvFigures(
        transfers=round(transfers),
        bytes=round(moved),
        mean_ms=mean_ms,
        gigabytes_per_s=moved / seconds / 1e9 if seconds else None,
        share_of_ttft=mean_ms / ttft.avg if mean_ms and isinstance(ttft, Summary) and ttft.avg > 0 else None,
    )


def _load(records: Iterable[RequestRecord]) -> tuple[WorkerLoad, ...]:
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(filter(None, (record.prefill, record.decode)))
    return tuple(WorkerLoad(id=name, requests=count) for name, count in sorted(counts.items()))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
