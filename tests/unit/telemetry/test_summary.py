"""A run's transport from its pairs."""

from __future__ import annotations

import pytest

from dynctl.telemetry.status import Evidence, PairStatus, TransportStatus, Verdict
from dynctl.telemetry.summary import run_transport


def pair(name: str, verdict: Verdict, rate: float | None = None) -> PairStatus:
    line = Evidence(kind="planned", source=f"{name}.log", line=verdict)
    return PairStatus(from_="prefill-0", to=name, verdict=verdict, gigabytes_per_s=rate, evidence=(line,))


def test_before_any_pair_is_proven() -> None:
    assert run_transport("auto", ()) == TransportStatus(required="auto", verdict="unknown")


@pytest.mark.parametrize(("verdicts", "worst"), [
    (["nvlink", "rdma"], "rdma"), (["shm", "tcp"], "tcp"), (["shm", "mixed"], "mixed"), (["mixed", "tcp"], "tcp"),
    (["unknown", "nvlink"], "unknown"), (["shm"], "shm"),
])  # fmt: skip
def test_the_worst_pair_speaks_for_the_run(verdicts: list[Verdict], worst: str) -> None:
    found = run_transport("auto", [pair(f"decode-{at}", verdict) for at, verdict in enumerate(verdicts)])
    assert found.verdict == worst
    assert [line.line for line in found.evidence] == [worst]
    assert len(found.pairs) == len(verdicts)


def test_the_rate_is_that_of_the_slowest() -> None:
    pairs = [pair("a", "shm", 2.0), pair("b", "shm", 0.5), pair("c", "shm")]
    assert run_transport("shm", pairs).gigabytes_per_s == 0.5
    assert run_transport("shm", pairs[2:]).gigabytes_per_s is None
