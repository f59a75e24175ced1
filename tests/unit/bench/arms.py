"""Arms as a bench leaves them, made up."""

from __future__ import annotations

from random import Random

from dynctl.bench.document import ClientHealth, Document
from dynctl.bench.lengths import Lengths
from dynctl.bench.measure import Arm
from dynctl.bench.outcome import arm_result
from dynctl.bench.sample import Phase, Sample
from dynctl.bench.summary import Round
from dynctl.bench.target import Target
from dynctl.bench.workload import Workload

HEALTH = ClientHealth(
    valid=True, lag_p99_ms=1, lag_max_ms=1, cpu_cores=0.1, cpu_us_per_chunk=9, late_p99_ms=None, chunks=9, processes=1
)


def arm(label: str, scale: float) -> Arm:
    made = Arm(label, Workload(isl=Lengths(1, 1), osl=Lengths(1, 1), requests=1))
    for number in range(2):
        samples = tuple(
            Sample(id=str(n), sent_s=n, chunk_s=(n + scale * (1 + n / 10), n + 2.5 * scale), end_s=n + 3.0)
            for n in range(8)
        )
        made.rounds.append(Round(number=number, samples=samples))
    return made


def served(label: str, *, requests: int = 40, ttft_ms: float = 50.0, itl_ms: float = 5.0) -> Arm:
    """Two rounds of a closed loop of 8, with ramp, tail and one request that failed; two tokens in the second chunk."""
    random = Random(f"{label}-{ttft_ms}")
    made = Arm(label, Workload(isl=Lengths(10, 30), osl=Lengths(4, 9), requests=requests, rounds=2, concurrency=8))
    made.targets = [Target(label=label, url="http://127.0.0.1:8000")]
    for number in range(2):
        samples = []
        for at in range(requests + 4):
            phase: Phase = "ramp" if at < 2 else "measured" if at < requests + 2 else "tail"
            begin = 1000.0 * number + at * 0.04
            chunks = [begin + ttft_ms / 1000 * random.uniform(0.8, 1.5)]
            for _ in range(random.randrange(3, 8)):
                chunks.append(chunks[-1] + itl_ms / 1000 * random.uniform(0.7, 1.6))
            samples.append(
                Sample(
                    id=f"bench-{number}-{at}",
                    phase=phase,
                    sent_s=begin,
                    chunk_s=tuple(chunks) if at != 5 else (),
                    end_s=chunks[-1] + 0.001,
                    input_tokens=random.randrange(10, 30),
                    output_tokens=len(chunks) + 1,
                    asked_tokens=len(chunks) + 1,
                    error="HTTP 503: no capacity" if at == 5 else None,
                )
            )
        made.rounds.append(Round(number=number, samples=tuple(samples)))
    return made


def result(*arms: Arm, **more: object) -> Document:
    """What a bench says of them."""
    slo_ms = {"ttft_ms": 60.0}
    base: dict[str, object] = {"client_health": HEALTH, "slo_ms": slo_ms, "at": 1795453442.5}
    return Document(**base, runs=tuple(arm_result(arm, slo_ms) for arm in arms), **more)  # type: ignore[arg-type]
