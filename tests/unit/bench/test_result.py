"""What is said of a result: what makes it invalid, the table, the words."""

from __future__ import annotations

import msgspec
import pytest

from dynctl.bench.document import ArmResult, ClientHealth, Document, KvFigures, Problem, Split, arm_metrics, errors
from dynctl.bench.job import Health
from dynctl.bench.sample import Sample
from dynctl.bench.summary import Round
from dynctl.bench.table import text
from dynctl.bench.validity import arm_notes, arm_problems, client_problems
from dynctl.bench.verdict import Verdict
from dynctl.bench.words import kv_lines, verdict_line

GOOD = Sample(id="a", sent_s=0.0, chunk_s=(0.05, 0.06), end_s=0.07, input_tokens=9, output_tokens=2, asked_tokens=2)


def rounds(*samples: Sample) -> list[Round]:
    return [Round(number=0, samples=samples)]


def arm(parts: list[Round], **more: object) -> ArmResult:
    failed = errors(parts)
    base: dict[str, object] = {"layout": "two", "target": "u", "load": "concurrency 4", "rounds": 1, "requests": 1}
    figures = {"failed": sum(failed.values()), "errors": dict(failed), "metrics": arm_metrics(parts, {}, 0)}
    return ArmResult(**{**base, **figures, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("health", "found"),
    [
        (Health(lag_p99_ms=2.0, cpu_cores=0.4), []),
        (Health(lag_p99_ms=3.0), ["client_lag"]),  # 5% of 50 ms
        (Health(cpu_cores=0.9), ["client_cpu"]),
    ],
)
def test_a_distorted_client(health: Health, found: list[str]) -> None:
    assert [problem.id for problem in client_problems([health], rounds(GOOD))] == found


@pytest.mark.parametrize(
    ("samples", "kv", "found"),
    [
        ([GOOD], 1, []),
        ([msgspec.structs.replace(GOOD, error="HTTP 500", chunk_s=())], 1, ["no_tokens"]),
        ([GOOD] * 9 + [msgspec.structs.replace(GOOD, error="stalled")], 9, ["errors"]),
        ([msgspec.structs.replace(GOOD, asked_tokens=100)], 1, ["short_outputs"]),
        ([GOOD], 0, ["no_kv"]),
    ],
)
def test_what_makes_a_layout_invalid(samples: list[Sample], kv: int, found: list[str]) -> None:
    parts = rounds(*samples)
    result = arm(parts, kv=KvFigures(transfers=kv, bytes=0))
    assert [p.id for p in arm_problems(result, parts, disaggregated=True, full=True)] == found


def test_notes() -> None:
    """Lengths that differ from what was counted, missing usage, requests that decode served alone."""
    parts = rounds(GOOD)
    degraded = Split(records=1, modes={"decode-only": 1})
    (length, alone) = arm_notes(arm(parts, split=degraded), parts, {"a": 12})
    assert "up to 3 tokens" in length
    assert "alone" in alone
    parts = rounds(msgspec.structs.replace(GOOD, output_tokens=None, input_tokens=None))
    (note,) = arm_notes(arm(parts), parts, {"a": 12})
    assert "no usage" in note


COMPARISON = {
    "itl_p99": Verdict(ratio=0.71, ci95=(0.66, 0.77), verdict="better"),
    "ttft_p50": Verdict(ratio=1.18, ci95=(1.1, 1.27), verdict="worse"),
    "output_tokens_per_s": Verdict(ratio=1.01, ci95=(0.97, 1.05)),
    "ttft_p99": Verdict(note="p99 needs 500 requests per layout; there are 300"),
}


def test_a_loss_is_said_as_plainly_as_a_win() -> None:
    line = verdict_line("disagg", "agg", COMPARISON)
    assert line == (
        "disagg against agg: TTFT p50 1.18× [1.10, 1.27] worse; ITL p99 0.71× [0.66, 0.77] better; "
        "no difference shown in output tokens/s"
    )


def test_a_slow_transfer_is_told() -> None:
    result = arm(
        rounds(GOOD),
        kv=KvFigures(transfers=1, bytes=1, mean_ms=11, gigabytes_per_s=0.6, share_of_ttft=0.22),
        split=Split(records=1, prefill=20.0),
    )
    (line,) = kv_lines(result)
    assert line.startswith("two: KV transfer is 22% of TTFT at 0.60 GB/s")
    assert "fabric" in line


def test_the_table_reads_at_80_columns() -> None:
    """With long names, all marks, and control characters of a strange target."""
    result = arm(
        rounds(GOOD),
        layout="a-very-long-name-\x1b[31m-that-goes-on-and-on-and-on-for-ever",
        kv=KvFigures(transfers=12000, bytes=1 << 40, mean_ms=12.3, gigabytes_per_s=123.4),
        split=Split(
            records=1, queue=0.1, prefill=1234.5, handover=99.0, window={"transfer": 1.0, "unattributed": -2.0}
        ),
    )
    document = Document(
        client_health=ClientHealth(
            valid=False,
            lag_p99_ms=1,
            lag_max_ms=1,
            cpu_cores=1,
            cpu_us_per_chunk=1,
            late_p99_ms=1,
            chunks=1,
            processes=1,
        ),
        valid=False,
        partial=True,
        interrupted_in="measuring",
        problems=(Problem(id="x", what="it was " + "late " * 30, fix="do " * 40),),
        runs=(result, result),
        baseline="agg",
        comparison=COMPARISON,
        says=(verdict_line("disagg", "agg", COMPARISON),),
    )
    lines = text(document)
    assert max(map(len, lines)) <= 80
    whole = "\n".join(lines)
    assert "\x1b" not in whole
    assert "0.71+ [0.66, 0.77]" in whole
    assert "1.18- [1.10, 1.27]" in whole
    assert "PARTIAL" in whole
    assert "INVALID" in whole
