"""Whether a result may be believed, and what to do where it may not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dynctl.bench.document import ArmResult, Problem
from dynctl.bench.job import Health
from dynctl.bench.sample import ttft_ms
from dynctl.bench.summary import Round, percentile
from dynctl.counted import counted

LAG_MS = 10.0
LAG_SHARE = 0.05
CPU_CORES = 0.70
"""bench.md §4: above any of them the loader distorts what it measures."""
FAILED_SHARE = 0.01
SHORT_SHARE = 0.95
"""Of the tokens asked for, where the end of text is ignored."""
MOVED_SHARE = 0.5


def client_problems(healths: Sequence[Health], rounds: Sequence[Round]) -> Iterator[Problem]:
    """The loader's own faults. A lag is judged by the TTFT that was measured along with it."""
    values = sorted(value for part in rounds for s in part.measured if (value := ttft_ms(s)) is not None)
    limit_ms = min(LAG_MS, LAG_SHARE * percentile(values, 50)) if values else LAG_MS
    lag_ms = max((health.lag_p99_ms for health in healths), default=0.0)
    cores = max((health.cpu_cores for health in healths), default=0.0)
    if lag_ms > limit_ms:
        yield Problem(
            id="client_lag",
            what=f"the loader's event loop was late by {lag_ms:.1f} ms (p99), over {limit_ms:.1f} ms: TTFT is inflated",
            fix="give the loader a core of its own, run it on another machine, or use --processes 2",
        )
    if cores > CPU_CORES:
        yield Problem(
            id="client_cpu",
            what=f"a loader process used {100 * cores:.0f}% of a core",
            fix="use more --processes, or fewer streams",
        )


def arm_problems(arm: ArmResult, rounds: Sequence[Round], *, disaggregated: bool, full: bool) -> Iterator[Problem]:
    """A layout's faults. `full`: every output should have the length asked for."""
    sent = [s for part in rounds for s in part.samples if s.phase == "measured" and s.error != "stopped"]
    served = [sample for sample in sent if sample.served]
    if not served:
        words = next(iter(arm.errors), "no request was answered")
        yield Problem(id="no_tokens", what=f"{arm.layout}: not one token came ({words})", fix="look at the target")
        return
    if arm.failed > FAILED_SHARE * len(sent):
        words, count = max(arm.errors.items(), key=lambda item: item[1])
        yield Problem(
            id="errors",
            what=f"{arm.layout}: {arm.failed} of {counted(len(sent), 'request')} failed; {count} with: {words}",
            fix="lower the load, or look at the target's logs",
        )
    asked = sum(s.asked_tokens for s in served if s.output_tokens is not None)
    came = sum(s.output_tokens or 0 for s in served)
    if full and asked and came < SHORT_SHARE * asked:
        yield Problem(
            id="short_outputs",
            what=f"{arm.layout}: {came} output tokens came where {asked} were asked for",
            fix="the target ends early: lower --osl, or look at its longest context",
        )
    if disaggregated and arm.kv is not None and arm.kv.transfers < MOVED_SHARE * len(served):
        yield Problem(
            id="no_kv",
            what=f"{arm.layout}: {counted(arm.kv.transfers, 'KV transfer')} for {counted(len(served), 'request')}: "
            "decode computes prompts",
            fix="`dynctl status` and the frontend's /metrics say why requests were not handed over",
        )


def arm_notes(arm: ArmResult, rounds: Sequence[Round], expected: dict[str, int | None]) -> Iterator[str]:
    """What a reader should know, without it being a fault. `expected`: input tokens by request id."""
    served = [sample for part in rounds for sample in part.measured]
    if served and all(sample.output_tokens is None for sample in served):
        yield f"{arm.layout}: the target sends no usage: chunks are counted, and a chunk may be several tokens"
    known = [(want, s.input_tokens) for s in served if (want := expected.get(s.id)) and s.input_tokens is not None]
    off = max((abs(want - got) for want, got in known), default=0)
    if off:
        yield f"{arm.layout}: prompts were up to {counted(off, 'token')} longer or shorter than asked for"
    if arm.failed:
        yield f"{arm.layout}: {counted(arm.failed, 'request')} failed, left out here"
    degraded = arm.split.modes.get("decode-only", 0) if arm.split else 0
    if degraded:
        yield f"{arm.layout}: decode served {counted(degraded, 'request')} alone"
