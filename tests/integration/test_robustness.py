"""Disks that fill up, files that are removed or damaged: the run serves on, says so, and heals or is still ended."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.integration.run_harness import Home, has_ended, until
from tests.integration.test_adoption import lose_supervisor, pids, row


def small_disk(place: Path, *options: str) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_log_that_the_disk_has_no_room_to_rotate_is_left_whole_and_rotated_later(home: Home) -> None:
    few = "from dynctl.store import rotation; from dynctl.runtime import rotating\n"
    home.hook(
        "_supervise", f"{few}rotation.LIMIT_BYTES, rotation.CHUNK_BYTES, rotating.AGAIN_S = 4 << 20, 1 << 16, 0.1"
    )
    home.up()
    before = home.status()
    logs = home.run_dir / "logs"
    small_disk(logs, "size=8m", "mode=700")
    try:
        log, line = logs / "decode-0.log", b"x" * 63 + b"\n"
        log.write_bytes(line * (6 << 20 >> 6))
        until(lambda: any("can't be rotated" in e["message"] for e in home.events()), "it is said")
        for number in range(5):  # it looks again, finds no room, and takes none
            assert home.ask().status_code == 200, number
            assert shutil.disk_usage(logs).free >= 1 << 20
        assert log.stat().st_size == 6 << 20
        assert [path.name for path in logs.iterdir()] == ["decode-0.log"]
        subprocess.run(["mount", "-o", "remount,size=32m", str(logs)], check=True)
        until((logs / "decode-0.log.1").is_file, "it is rotated once there is room")
        assert (logs / "decode-0.log.1").stat().st_size == 6 << 20
        assert log.stat().st_size == 0
        assert sum("can't be rotated" in e["message"] for e in home.events()) == 1
        after = home.status()
        assert (after["state"], pids(after)) == ("ready", pids(before))
    finally:
        subprocess.run(["umount", "-l", str(logs)], check=True)


def test_state_that_cannot_be_written_or_is_removed_is_said_and_written_later(home: Home) -> None:
    home.up({"health": {"canary": "1s"}})
    before = home.status()
    supervisor = psutil.Process(before["supervisor"]["pid"])
    supervisor.rlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # every write to a file fails
    worker = psutil.Process(row(before, "prefill-0")["pid"])
    worker.suspend()
    full = home.await_status(
        lambda s: row(s, "prefill-0")["state"] == "unhealthy" and bool(s["warnings"]), "an event that can't be written"
    )
    assert "events are kept in memory only" in full["warnings"][0]
    assert home.ask().status_code == 200
    assert "unhealthy" not in home.states("prefill-0")
    supervisor.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    worker.resume()
    until(lambda: "unhealthy" in home.states("prefill-0"), "it is written later")
    home.await_status(lambda s: s["state"] == "ready" and not s["warnings"], "nothing is wrong any more")

    shutil.rmtree(home.run_dir)
    until(lambda: any((home.dir / "state").glob(f"dynctl/*/{home.name}/ready")), "the directory is laid anew")
    again = home.await_status(lambda s: s["state"] == "ready", "it is found again")
    assert pids(again) == pids(before)
    until(lambda: "ready" in home.states(), "what is remembered of the events is written again")
    os.truncate(home.run_dir / "run.json", 20)
    until(lambda: home.run("status", home.name).code == 0, "a damaged record is written anew")
    lose_supervisor(home)
    assert home.run("up", "-d", home.name).code == 0
    assert pids(home.status()) == pids(before)
    assert home.run("down", home.name).code == 0
    home.nothing_left()


def test_a_damaged_record_of_an_unsupervised_run_is_said_and_costs_no_orphan(home: Home) -> None:
    home.up()
    lose_supervisor(home)
    left = home.processes()
    plan = home.run_dir / "plan.json"
    plan.write_bytes(plan.read_bytes()[:1000])
    adopting = home.run("up", "-d", home.name)
    assert adopting.code == 5
    assert f"dynctl down {home.name}" in adopting.error()["fix"][0]
    (home.run_dir / "run.json").write_bytes(b"\0" * 100)
    looked = home.run("status", home.name)
    assert looked.code == 5
    assert "can't be read" in looked.error()["error"][0]
    again = home.run("up", "-d", home.topology())
    assert again.code == 5
    assert "unsupervised" in again.error()["error"][0]
    assert not any(has_ended(process) for process in left)
    done = home.run("down", home.name)
    assert done.code == 0, done.err
    home.nothing_left()
    home.up()
