"""Shared memory that engines leave when they are killed goes with its worker, or with its run, however that ended."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from dynctl.runtime.shared_memory import mapped_by
from tests.integration.run_harness import Home, until


def made(home: Home) -> set[Path]:
    """What the run's processes have mapped."""
    return {Path(path) for path in mapped_by(process.pid for process in home.processes())}


def noted(home: Home, count: int) -> None:
    """Waits until the run's directory tells of so many."""
    path = home.run_dir / "segments.jsonl"
    until(lambda: path.exists() and len(path.read_bytes().splitlines()) >= count, "the segments are noted")


def kill_all(home: Home) -> None:
    while left := home.processes():
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()


def test_segments_go_with_what_made_them(home: Home) -> None:
    home.control(segment=True)
    home.up({"roles": {"decode": {"restart": {"backoff": "100ms"}}}})
    first = made(home)
    assert len(first) == 2
    noted(home, 2)
    (server,) = (p["pid"] for p in home.status()["processes"] if p["id"] == "decode-0")
    for process in (psutil.Process(server), *psutil.Process(server).children(recursive=True)):
        process.kill()
    home.await_status(lambda s: s["state"] == "ready" and any(p["restarts"] for p in s["processes"]), "ready again")
    second = made(home)
    assert len(second) == 2
    assert len(first & second) == 1, "prefill's is as it was"
    assert not any(path.exists() for path in first - second)
    noted(home, 3)
    kill_all(home)
    assert all(path.exists() for path in second), "nobody was left to remove them"
    assert home.run("up", "-d", home.topology()).code == 0
    assert not any(path.exists() for path in second)
    third = made(home)
    noted(home, 2)
    kill_all(home)
    assert home.run("down", "--orphans").code == 0
    assert not any(path.exists() for path in third)
    home.control()


def test_segments_that_are_made_while_an_engine_ends_go_too(home: Home) -> None:
    """As an engine does that was starting when it was told to end."""
    home.control(term_segment=True, term_delay_s=1.0)
    home.up()
    down = home.start("down", home.name)
    late = until(lambda: found if len(found := made(home)) == 2 else None, "each engine has made one")
    assert down.wait().code == 0
    assert not any(path.exists() for path in late)
    home.control()


def test_segments_that_a_worker_makes_while_it_is_taken_away_go_with_it(home: Home) -> None:
    home.up({"roles": {"prefill": {"workers": 2}}})
    home.control(term_segment=True, term_delay_s=1.0)
    scale = home.start("scale", "prefill=1", "--run", home.name)
    (late,) = until(lambda: made(home), "it has made one")
    assert scale.wait().code == 0
    assert not late.exists()
    home.control()
