"""Whatever is killed, however: `down --orphans` and the next `up` reclaim what is left, and touch nothing else."""

from __future__ import annotations

import contextlib
import shutil
import signal

import psutil

from tests.integration.run_harness import Home, has_ended, until


def supervisor(home: Home) -> psutil.Process:
    """The run's supervisor, by what is alive: `status` may be refused."""

    def look() -> psutil.Process | None:
        for process in home.processes():
            with contextlib.suppress(psutil.Error):
                if {"_supervise", home.name} <= set(process.cmdline()):
                    return process
        return None

    found: psutil.Process = until(look, "a supervisor")
    return found


def test_orphans_are_reclaimed_without_any_file_and_a_live_run_is_not(home: Home) -> None:
    other = home.new_name()
    live = home.topology({"name": other, "frontend": {"port": home.free_port()}}, file="live.yaml")
    assert home.run("up", "-d", live).code == 0
    before = {p.pid for p in home.processes()}
    home.control(hang_at_phase="kv_cache")
    up = home.start("up", home.topology())
    up.says("decode-0")
    up.process.kill()
    supervisor(home).kill()
    until(lambda: {p.pid for p in home.processes()} - before, "workers outlive both")
    shutil.rmtree(home.run_dir)
    done = home.run("down", "--orphans")
    assert done.code == 0, done.err
    assert f"reclaimed `{home.name}`" in done.err
    assert other not in done.err
    assert {p.pid for p in home.processes()} == before
    assert "no orphans" in home.run("down", "--orphans").err
    assert home.run("down", other).code == 0


def test_the_next_up_reclaims_what_never_served(home: Home) -> None:
    home.control(hang_at_phase="kv_cache")
    up = home.start("up", home.topology())
    up.says("decode-0")
    supervisor(home).kill()
    assert up.wait().code == 1
    left = home.processes()
    assert left
    home.control()
    again = home.run("up", "-d", home.topology())
    assert again.code == 0, again.err
    assert "reclaimed" in again.err
    assert all(has_ended(process) for process in left)


def test_down_is_not_held_up_by_a_frozen_supervisor(home: Home) -> None:
    home.up()
    frozen = supervisor(home)
    frozen.send_signal(signal.SIGSTOP)
    done = home.run("down", home.name)
    assert done.code == 0, done.err
    assert f"pid {frozen.pid}) does not answer: killed" in done.err
    home.nothing_left()
    home.up()
