"""Hosts made of namespaces: a network each, joined by a switch, and where wanted a pid namespace each.

With network namespaces alone UCX still sees one node; with pid namespaces as well the hosts are different nodes to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from dynctl.runtime.shared_memory import mapped_by
from tests.integration.command import Command, has_ended, until

CLONE_NEWNET = 0x40000000
INIT = """import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""
"""The first process of a pid namespace: takes in orphans. All others end with it."""


def reason_to_skip() -> str | None:
    """Why no such host can be made here; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} missing (packages iproute2, util-linux)"
    name = f"dynctl-{uuid.uuid4().hex[:6]}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces are not permitted here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Host:
    """One of them: runs commands inside. Its end of the link is `device`, the switch's end `port`."""

    def __init__(self, switch: str, mark: str, end: str, address: str, *, own_pids: bool) -> None:
        self.name, self.device, self.port = f"dynctl-{mark}-{end}", f"v{mark}{end}", f"s{mark}{end}"
        self.address, self._switch, self._own_pids = address, switch, own_pids
        self._commands: list[Command] = []
        self._outer: subprocess.Popen[bytes] | None = None
        self._init: psutil.Process | None = None

    def boot(self) -> None:
        """Its first process, where it has pids of its own."""
        if not self._own_pids:
            return
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", INIT]
        argv = ["ip", "netns", "exec", self.name, *inside]
        self._outer = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with self._outer.stdout or contextlib.nullcontext() as said:
            assert said is not None
            assert said.readline() == b"up\n", "no first process"
        (self._init,) = psutil.Process(self._outer.pid).children()

    def halt(self) -> None:
        """Ends all its processes at once, as a loss of power does; with them goes their shared memory."""
        if self._init and self._outer:
            made = mapped_by(process.pid for process in self.processes())
            self._init.kill()
            self._outer.wait()
            for path in made:
                Path(path).unlink(missing_ok=True)
            self._init = self._outer = None

    def command(self, *argv: str, env: Mapping[str, str], cwd: Path) -> Command:
        """Starts one command in this host."""
        enter = ["ip", "netns", "exec", self.name]
        if self._init:
            enter = ["nsenter", "--target", str(self._init.pid), "--mount", "--net", "--pid", f"--wdns={cwd}"]
        command = Command([*enter, *argv], env, cwd)
        self._commands.append(command)
        return command

    def dynctl(self, *arguments: str, env: Mapping[str, str], cwd: Path) -> Command:
        """Starts one dynctl command in this host."""
        return self.command(sys.executable, "-m", "dynctl", *arguments, env=env, cwd=cwd)

    def threads(self, count: int = 1) -> ThreadPoolExecutor:
        """Threads of this process whose sockets are in this host's network."""
        return ThreadPoolExecutor(count, initializer=_enter_network, initargs=(self.name,))

    def link(self, state: str) -> None:
        """Sets its own end of the link `up` or `down`: when down it has not even its own address."""
        ip("-n", self.name, "link", "set", self.device, state)

    def unplug(self, *, silent: bool) -> None:
        """Its cable is pulled: no carrier. `silent`: the switch drops whatever comes, and nobody is told."""
        ip("-n", self._switch, "link", "set", self.port, *(("nomaster",) if silent else ("down",)))

    def plug(self) -> None:
        """Its cable is back, and the switch forwards."""
        ip("-n", self._switch, "link", "set", self.port, "master", "sw", "up")

    def processes(self) -> list[psutil.Process]:
        """What still runs in it."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        own = {self._init.pid, self._init.ppid()} if self._init else set[int]()
        pids = {int(pid) for pid in found.stdout.split()} - own
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

    def end(self) -> None:
        """Kills what is left, and removes it."""
        for command in self._commands:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()
        self.halt()
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        until(lambda: all(has_ended(process) for process in left), f"the processes of {self.name} end")
        subprocess.run(["ip", "netns", "del", self.name], check=False)


@contextmanager
def hosts(ends: Sequence[str], *, own_pids: bool) -> Iterator[tuple[Host, ...]]:
    """Hosts on 10.99.0.0/24, with names that no other test uses; all are gone afterwards. `ends`: a letter each."""
    mark = uuid.uuid4().hex[:6]
    switch = f"dynctl-{mark}-sw"
    made = tuple(
        Host(switch, mark, end, f"10.99.0.{number}", own_pids=own_pids) for number, end in enumerate(ends, start=1)
    )
    try:
        ip("netns", "add", switch)
        ip("-n", switch, "link", "add", "sw", "type", "bridge")
        ip("-n", switch, "link", "set", "sw", "up")
        for host in made:
            ip("netns", "add", host.name)
            ip("link", "add", host.device, "netns", host.name, "type", "veth", "peer", host.port, "netns", switch)
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.device)
            ip("-n", host.name, "link", "set", "lo", "up")
            host.link("up")
            host.plug()
            host.boot()
        yield made
    finally:
        for host in made:
            host.end()
        subprocess.run(["ip", "netns", "del", switch], check=False)


@contextmanager
def two_hosts(*, own_pids: bool) -> Iterator[tuple[Host, Host]]:
    """Two hosts."""
    with hosts("ab", own_pids=own_pids) as (a, b):
        yield a, b


def ip(*arguments: str) -> None:
    """Runs `ip`; a skip when the machine forbids what it is asked for."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _enter_network(name: str) -> None:
    """This thread's network namespace from here on (os.setns came with Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {name}")
