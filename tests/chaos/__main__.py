"""`python -m tests.chaos`: the fault matrix against fake engines, its main rows against real ones, or both: one table.

Exit 1 when a row is not as expected. The same seed gives the same random faults.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dynctl.engines.environment import default_python
from dynctl.store.paths import cache_root
from tests.chaos import table
from tests.chaos.fault import Fault, Seen
from tests.chaos.matrix import at_random, matrix
from tests.chaos.play import play
from tests.chaos.starts import kill_in_up, play_start, starts
from tests.chaos.world import World
from tests.fakes.environment import build_fake_environment
from tests.fakes.model import make_fake_model
from tests.integration.run_harness import Home

DEADLINE_S = {"fake": 20.0, "vllm": 120.0}
UP_S = 12.0
"""Longer than `up` of the fake engines takes."""
REAL_UP_S = 60.0


def main() -> int:
    """Plays the rows; 0 when all are as expected."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the deployment is ended, too
    rows: list[dict[str, object]] = []
    print(table.heads(), flush=True)
    with tempfile.TemporaryDirectory(prefix="dynctl-chaos-") as directory:
        for engine, seen in _play_all(options, Path(directory)):
            rows.append({"engine": engine, **seen.document()})
            print(table.line(rows[-1]), flush=True)
            if options.json:  # row by row: what was seen is not lost with what comes after
                options.json.write_text(json.dumps({"schema": 1, "seed": options.seed, "rows": rows}, indent=1) + "\n")
    bad = [row for row in rows if not row["ok"]]
    print(f"\n{len(rows)} rows, {len(bad)} not as expected", file=sys.stderr)
    for row in bad:
        print(f"  {row['fault']}: {row['seen']}  {row['examples']}", file=sys.stderr)
    return 1 if bad else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("fake", "vllm"), action="append", help="one or both; fake by default")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--random", type=int, default=10, metavar="N", help="random pairs of faults")
    parser.add_argument(
        "--kills", type=int, default=10, metavar="N", help="random moments of `up` for each SIGKILL row"
    )
    parser.add_argument(
        "--within", type=float, default=3600.0, metavar="SECONDS", help="no further SIGKILL of `up` after so long"
    )
    parser.add_argument("--stop", type=float, default=30.0, metavar="SECONDS", help="how long SIGSTOP lasts")
    parser.add_argument("--only", default="", metavar="TEXT[|TEXT]", help="rows whose name has one of these in it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the rows as JSON, too")
    options = parser.parse_args()
    options.engine = options.engine or ["fake"]
    return options


def _play_all(options: argparse.Namespace, directory: Path) -> Iterator[tuple[str, Seen]]:
    for engine in options.engine:
        place = directory / engine
        place.mkdir()
        for seen in _play_engine(options, place, engine):
            yield engine, seen


def _play_engine(options: argparse.Namespace, directory: Path, engine: str) -> Iterator[Seen]:
    fake = engine == "fake"
    python = str(build_fake_environment(directory / "venv")) if fake else str(default_python("vllm"))
    model = make_fake_model(directory / "model")
    deadline_s = max(DEADLINE_S[engine], options.stop + 15)

    @contextmanager
    def world() -> Iterator[World]:
        home = Home(python, model)
        if not fake:
            home.env["XDG_CACHE_HOME"] = str(cache_root().parent)
        try:
            yield World(home, fake=fake, deadline_s=deadline_s)
        finally:
            try:
                home.close()
            except AssertionError as error:
                print(f"left after `down`: {str(error)[:500]}", file=sys.stderr)

    chosen = [fault for fault in matrix(options.stop) if fake or fault.real]
    chosen += at_random(options.seed, options.random) if fake else []
    wanted = options.only.split("|")
    pending = [fault for fault in chosen if any(each in fault.name for each in wanted)]
    while pending:
        with world() as there:
            there.up()
            yield from _until_broken(there, pending)
    for start in starts() if fake else []:
        if any(each in start.name for each in wanted):
            with world() as there:
                yield play_start(there, start)
    for whom in ("dynctl", "supervisor", "both"):
        if options.kills and any(each in f"{whom} SIGKILL in `up`" for each in wanted):
            with world() as there:
                chance = random.Random(f"{options.seed} {whom}")
                there.home.control(segment=True)  # fake engines leave what real ones do
                yield kill_in_up(there, chance, whom, options.kills, UP_S if fake else REAL_UP_S, options.within)


def _until_broken(world: World, pending: list[Fault]) -> Iterator[Seen]:
    """Plays fault after fault on one deployment, as long as it is whole again after each."""
    while pending:
        seen, whole = play(world, pending.pop(0))
        yield seen
        if not whole:
            return


if __name__ == "__main__":
    sys.exit(main())
