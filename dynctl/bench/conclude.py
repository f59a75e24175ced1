"""From arms to the document: results, the comparison, what may be said, whether it is valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dynctl import __version__
from dynctl.bench.document import Document, client_health
from dynctl.bench.environment import environment
from dynctl.bench.measure import Arm
from dynctl.bench.outcome import arm_result, findings
from dynctl.bench.stop import Stop
from dynctl.bench.verdict import Verdict, compare
from dynctl.bench.words import itself_line, kv_lines, verdict_line


def conclude(
    all_arms: Sequence[Arm],
    *,
    compared: bool,
    slo_ms: Mapping[str, float],
    notes: Sequence[str],
    stop: Stop,
    processes: int,
    command: Sequence[str],
    backend: str,
    at: float,
) -> Document:
    """The whole result. `all_arms`: the layout, its baseline, the baseline again; or the loads of a sweep."""
    arms = [arm for arm in all_arms if arm.rounds]
    results = [arm_result(arm, slo_ms) for arm in arms]
    problems, found_notes = findings(arms, results)
    if backend != "dynctl" and arms:
        found_notes.append(f"measured by {backend}, which does not say how much it distorted")
    health = [health for arm in arms for health in arm.healths]
    comparison: dict[str, Verdict] = {}
    itself: dict[str, Verdict] = {}
    says = [line for result in results for line in kv_lines(result)]
    if compared and len(arms) >= 2 and arms[:2] == list(all_arms[:2]):
        if len(arms) > 2:
            itself = compare(arms[1].rounds, arms[2].rounds, slo_ms=slo_ms)
            says = [itself_line(arms[1].label, itself), *says]
        gpus = (results[1].gpus or 1, results[0].gpus or 1)
        comparison = compare(arms[1].rounds, arms[0].rounds, slo_ms=slo_ms, gpus=gpus, itself=itself)
        says = [verdict_line(results[0].layout, results[1].layout, comparison), *says]
        if gpus[0] != gpus[1]:
            found_notes.append(f"the layouts have {gpus[1]} and {gpus[0]} GPUs: only figures per GPU compare")
    return Document(
        dynctl_version=__version__,
        at=at,
        command=tuple(command),
        backend=backend,
        partial=stop.asked() or any(part.interrupted for arm in arms for part in arm.rounds),
        interrupted_in=stop.interrupted_in,
        valid=bool(arms) and not problems,
        problems=tuple(problems),
        notes=(*notes, *found_notes),
        workload=msgspec.to_builtins(arms[0].workload) if arms else {},
        environment=environment(),
        slo_ms=dict(slo_ms),
        client_health=client_health(health, processes, valid=not any(p.id.startswith("client") for p in problems)),
        runs=tuple(results),
        baseline=results[1].layout if comparison else None,
        comparison=comparison,
        itself=itself,
        says=tuple(says),
    )
