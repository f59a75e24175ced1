"""Time until Dynamo serves: `dynctl up -d` against a launcher that starts the same processes by hand, all at once.

    .venv/bin/python scripts/bench_dynamo_startup.py --engine mocker [--pairs 4] [--set KEY=VALUE]... [--json]

By hand means: argv and environment of the plan's frontend and workers, started in parallel. Both ways end with the
same: the frontend has answered a completion and named the prefill and the decode worker that served it. `dynctl up`
does more before that, and is timed with it: its preflight, and the proof of every pair. Pairs are interleaved (A B, B
A, ...), on an otherwise idle machine; a first start is not counted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench_startup import ROOT, Bench, end, serve_a_token, start

PROFILES = {"mocker": "dynamo-mocker-1p1d", "vllm": "dynamo-cpu-1p1d"}
ASKED = {"nvext": {"extra_fields": ["worker_id"]}}


class Start(NamedTuple):
    """One `dynctl up -d`, in seconds: until its first process was started, the last one was healthy, `up` was back."""

    preflight_s: float
    healthy_s: float
    returned_s: float
    served_s: float


class DynamoBench(Bench):
    """Both ways of starting Dynamo."""

    def with_dynctl(self, *options: str) -> float:
        """Seconds from `dynctl up -d` to a completion served by both workers."""
        return self.timed(*options).served_s

    def timed(self, *options: str) -> Start:
        """The same with the times in between, from the run's events."""
        begun, at = time.monotonic(), time.time()
        self.up(*options)
        returned_s = time.monotonic() - begun
        try:
            serve_a_token(self.url, served_by_both, **ASKED)
            served_s = time.monotonic() - begun
            events = list(map(json.loads, self.dynctl("events", "--json").stdout.splitlines()))
        finally:
            self.dynctl("down")
        spawned = min(event["at"] for event in events if event["kind"] == "process.state")
        healthy = max(event["at"] for event in events if event["kind"] == "gate" and event["message"] == "healthy")
        return Start(spawned - at, healthy - at, returned_s, served_s)

    def by_hand(self, plan: dict[str, Any]) -> float:
        """Seconds from starting all processes at once to a completion served by both workers."""
        run = Path(plan["run_dir"])
        shutil.rmtree(run / "dynamo", ignore_errors=True)  # registrations of the start before
        (run / "dynamo").mkdir(parents=True)
        begun = time.monotonic()
        running = [start(process, self.env) for process in plan["processes"]]
        try:
            serve_a_token(self.url, served_by_both, **ASKED)
            return time.monotonic() - begun
        finally:
            for process in reversed(running):
                end(process)


def served_by_both(answer: Any) -> bool:
    """Whether a prefill and a decode worker had a part in it."""
    ids = (answer.get("nvext") or {}).get("worker_id") or {}
    return ids.get("prefill_worker_id") not in (None, ids.get("decode_worker_id"))


def main() -> None:
    """Runs the pairs and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=PROFILES, default="mocker", help="simulated workers, or vLLM's")
    parser.add_argument("--pairs", type=int, default=4, help="interleaved pairs (4)")
    parser.add_argument("--port", type=int, default=18000, help="the frontend's port (18000)")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="an override, as of `dynctl up`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing started is left
    directory = Path(tempfile.mkdtemp(prefix="dynctl-bench-"))
    profile = ROOT / "profiles" / f"{PROFILES[options.engine]}.yaml"
    try:
        rows = measure(DynamoBench(directory, options.port, profile, options.sets), options.pairs)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    report(rows, as_json=options.json)


def measure(bench: DynamoBench, pairs: int) -> list[tuple[Start, float]]:
    """dynctl's start and the seconds by hand, per pair. A first start is not counted."""
    bench.timed()
    plan = bench.plan()
    rows = []
    for at in range(pairs):
        hand_s = bench.by_hand(plan) if at % 2 else None
        ours = bench.timed()
        rows.append((ours, bench.by_hand(plan) if hand_s is None else hand_s))
        print(f"pair {at + 1}: dynctl {ours.served_s:.2f} s, by hand {rows[-1][1]:.2f} s", file=sys.stderr)
    return rows


def report(rows: list[tuple[Start, float]], *, as_json: bool) -> None:
    """The table, or one JSON document."""
    ours, hand = [one for one, _ in rows], [hand_s for _, hand_s in rows]
    ratios = [one.served_s / hand_s for one, hand_s in rows]
    of_medians = statistics.median(one.served_s for one in ours) / statistics.median(hand)
    if as_json:
        document = {"schema": 1, "dynctl": [one._asdict() for one in ours], "by_hand_s": hand, "ratios": ratios}
        print(json.dumps({**document, "ratio_of_medians": of_medians}))
        return
    columns = {
        "dynctl up -d": [one.served_s for one in ours],
        "by hand": hand,
        "dynctl: until the first process was started": [one.preflight_s for one in ours],
        "dynctl: from then until all were healthy": [one.healthy_s - one.preflight_s for one in ours],
        "dynctl: from then until `up` was back": [one.returned_s - one.healthy_s for one in ours],
        "dynctl: a completion after that": [one.served_s - one.returned_s for one in ours],
    }
    print("| start to a completion by both workers | median s | min s | max s |\n|---|---|---|---|")
    for name, seconds in columns.items():
        print(f"| {name} | {statistics.median(seconds):.2f} | {min(seconds):.2f} | {max(seconds):.2f} |")
    print(f"\nratio, pair by pair: {', '.join(f'{ratio:.3f}' for ratio in ratios)}; of the medians {of_medians:.3f}")


if __name__ == "__main__":
    main()
