"""Two hosts made of namespaces: a network each, joined by a veth pair, and where wanted a pid namespace each.

With network namespaces alone UCX still sees one node; with pid namespaces as well the two are different nodes to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.integration.command import Command, has_ended, until


def reason_to_skip() -> str | None:
    """Why no such host can be made here; None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
    if missing:
        return f"{' and '.join(missing)} missing (packages iproute2, util-linux)"
    name = f"dynctl-{uuid.uuid4().hex[:6]}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces are not permitted here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Host:
    """One of the two: runs commands inside."""

    def __init__(self, name: str, device: str, address: str, *, own_pids: bool) -> None:
        self.name, self.device, self.address, self._own_pids = name, device, address, own_pids
        self._commands: list[Command] = []

    def dynctl(self, *arguments: str, env: Mapping[str, str], cwd: Path) -> Command:
        """Starts one dynctl command in this host."""
        inside = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"] if self._own_pids else []
        argv = ["ip", "netns", "exec", self.name, *inside, sys.executable, "-m", "dynctl", *arguments]
        command = Command(argv, env, cwd)
        self._commands.append(command)
        return command

    def link(self, state: str) -> None:
        """Sets its end of the link `up` or `down`."""
        ip("-n", self.name, "link", "set", self.device, state)

    def processes(self) -> list[psutil.Process]:
        """What still runs in it."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return [psutil.Process(int(pid)) for pid in found.stdout.split() if psutil.pid_exists(int(pid))]

    def end(self) -> None:
        """Kills what is left, and removes it."""
        for command in self._commands:
            if command.process.poll() is None:
                command.process.kill()
                command.process.wait()
        left = self.processes()
        for process in left:
            process.kill()
        until(lambda: all(has_ended(process) for process in left), f"the processes of {self.name} end")
        subprocess.run(["ip", "netns", "del", self.name], check=False)


@contextmanager
def two_hosts(*, own_pids: bool) -> Iterator[tuple[Host, Host]]:
    """Two hosts on 10.99.0.0/24, with names that no other test uses; both are gone afterwards."""
    mark = uuid.uuid4().hex[:6]
    hosts = tuple(
        Host(f"dynctl-{mark}-{end}", f"v{mark}{end}", f"10.99.0.{number}", own_pids=own_pids)
        for number, end in enumerate("ab", start=1)
    )
    a, b = hosts
    try:
        for host in hosts:
            ip("netns", "add", host.name)
        ip("link", "add", a.device, "netns", a.name, "type", "veth", "peer", "name", b.device, "netns", b.name)
        for host in hosts:
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.device)
            ip("-n", host.name, "link", "set", "lo", "up")
            host.link("up")
        yield a, b
    finally:
        for host in hosts:
            host.end()


def ip(*arguments: str) -> None:
    """Runs `ip`; a skip when the machine forbids what it is asked for."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
