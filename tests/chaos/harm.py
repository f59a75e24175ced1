"""What is done to a deployment: signals, misbehaving engines, full disks, lost files, exhausted limits."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.chaos import orders
from tests.chaos.world import World

Harm = Callable[[World], None]


def send(number: signal.Signals, *targets: str) -> Harm:
    """That signal to these processes, as close together as can be."""

    def harm(world: World) -> None:
        for pid in [world.pid(target) for target in targets]:
            os.kill(pid, number)

    return harm


def send_to_run(number: signal.Signals) -> Harm:
    """To every process of the plan: all but the supervisor."""
    return lambda world: send(number, *(process.id for process in world.processes()))(world)


class Slow:
    """A process that runs for a tenth of the time only: stopped and let go on again and again."""

    RUNS_S, STOPPED_S = 0.01, 0.09

    def __init__(self, target: str) -> None:
        self._target = target
        self._over = threading.Event()

    def begin(self, world: World) -> None:
        """From now on."""
        self._over.clear()
        process = psutil.Process(world.pid(self._target))

        def run() -> None:
            with contextlib.suppress(psutil.Error):
                while not self._over.wait(self.RUNS_S):
                    process.suspend()
                    self._over.wait(self.STOPPED_S)
                    process.resume()

        threading.Thread(target=run, daemon=True).start()

    def end(self, _world: World) -> None:
        """As fast as ever."""
        self._over.set()


class Stop:
    """SIGSTOP, and later SIGCONT to the very process, unless it was replaced meanwhile."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._process: psutil.Process | None = None

    def stop(self, world: World) -> None:
        """Stops it."""
        self._process = psutil.Process(world.pid(self._target))
        self._process.suspend()

    def go_on(self, _world: World) -> None:
        """Lets it go on."""
        with contextlib.suppress(psutil.Error):
            if self._process:
                self._process.resume()


def send_all(number: signal.Signals) -> Harm:
    """To every process there is, supervisor and engine children too."""

    def harm(world: World) -> None:
        for process in world.home.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    return harm


def tell(target: str, **knobs: Any) -> Harm:
    """The engine misbehaves from now on."""
    return lambda world: world.tell(target, **knobs)


def slower(target: str) -> Harm:
    """Each token takes ten times as long."""
    fake = tell(target, token_delay_ms=80, prefill_delay_ms=200)
    return lambda world: fake(world) if world.fake else world.tell(target, slower=10)


def well(world: World) -> None:
    """All engines behave again."""
    world.tell()


def crash_on(target: str, later: int) -> Harm:
    """The engine dies (a real one's core, by SIGSEGV) on its so manyth request from now; returns as it dies."""

    def harm(world: World) -> None:
        process = world.process(target)
        if not world.fake:
            core = psutil.Process(world.pid(f"{target}.core"))
            orders.give(world.home.dir, target, crash_on_request=later)
            core.wait(60)
            return
        files = list((world.home.dir / "record").glob(f"*-{process.ports['http']}.jsonl"))
        lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        numbers = [line["number"] for line in lines if line["event"] == "arrived"]
        world.tell(target, crash_on_request=(numbers[-1] if numbers else 0) + later)
        old = psutil.Process(process.pid)
        with contextlib.suppress(psutil.TimeoutExpired):
            old.wait(20)
        world.tell()

    return harm


def killed_and(target: str, **knobs: Any) -> Harm:
    """SIGKILL, and the next start goes wrong as the knobs say."""

    def harm(world: World) -> None:
        pid = world.pid(target)
        world.tell(target, **knobs)
        os.kill(pid, signal.SIGKILL)

    return harm


def steal_port(target: str, hold_s: float) -> Harm:
    """SIGKILL, and its HTTP port is somebody else's before it is started again."""

    def harm(world: World) -> None:
        process = world.process(target)
        thief = socket.socket()
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                thief.bind(("127.0.0.1", process.ports["http"]))
                break
        thief.listen()
        threading.Timer(hold_s, thief.close).start()

    return harm


class Disk:
    """A small file system below the state directory, filled up for a while."""

    def __init__(self, part: str) -> None:
        self._part, self._mounted = part, Path()

    def full(self, world: World) -> None:
        """Puts the run's files (or its logs) onto a file system without room, in place; opened files stay where they
        are, so the writers' own limit of file size is taken as well."""
        self._mounted = world.home.run_dir / self._part
        size = ["-o", "size=64k", "tmpfs"]
        subprocess.run(["mount", "-t", "tmpfs", *size, str(self._mounted)], check=True)
        with contextlib.suppress(OSError), (self._mounted / "filler").open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()

    def freed(self, _world: World) -> None:
        """There is room again."""
        subprocess.run(["umount", "-l", str(self._mounted)], check=True)


def no_mounts() -> str | None:
    """Why no file system can be mounted here."""
    return None if os.geteuid() == 0 else "mounting a small file system needs root"


def writes_fail(*targets: str, fail: bool) -> Harm:
    """Every write to a file beyond its present start fails (EFBIG), for these processes."""

    def harm(world: World) -> None:
        for target in targets:
            room = (0, resource.RLIM_INFINITY) if fail else (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            psutil.Process(world.pid(target)).rlimit(resource.RLIMIT_FSIZE, room)

    return harm


def no_descriptors(target: str, *, none: bool) -> Harm:
    """No further file descriptor for that process."""

    def harm(world: World) -> None:
        process = psutil.Process(world.pid(target))
        _, hard = process.rlimit(resource.RLIMIT_NOFILE)
        process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() if none else hard, hard))

    return harm


def then(*harms: Harm, gap_s: float = 0.0) -> Harm:
    """One after the other."""

    def harm(world: World) -> None:
        for number, each in enumerate(harms):
            time.sleep(gap_s if number else 0.0)
            each(world)

    return harm


def truncate(name: str, keep: float) -> Harm:
    """Cuts one of the run's files to a part of its length."""

    def harm(world: World) -> None:
        path = world.home.run_dir / name
        os.truncate(path, int(path.stat().st_size * keep))

    return harm


def remove_run_directory(world: World) -> None:
    """Everything the run keeps on disk, while it runs."""
    shutil.rmtree(world.home.run_dir)
