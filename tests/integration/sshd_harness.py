"""ssh servers of a test's own: on a free port, with keys and configuration in the test's directory, for this user."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.integration.command import until

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")
MISSING = None if SSHD and shutil.which("ssh") and shutil.which("ssh-keygen") else "no OpenSSH (openssh-server)"
PRIVILEGE_DIR = Path("/run/sshd")


def needs_sshd() -> None:
    """Skips where OpenSSH is missing; where everything must be tested (CI), that is a failure."""
    if MISSING is None:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{MISSING}: apt-get install openssh-server openssh-client")
    pytest.skip(MISSING)


class Ssh:
    """Servers, and the client's configuration that knows them by alias. `bin` holds an `ssh` that reads it."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory / "ssh"
        self.dir.mkdir(mode=0o700)
        self.bin = self.dir / "bin"
        self.bin.mkdir()
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self.key = self._new_key("client")
        self.known_hosts = self.dir / "known_hosts"
        self.known_hosts.touch()
        self.config = self.dir / "config"
        self.config.touch(mode=0o600)
        wrapper = self.bin / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.config} "$@"\n')
        wrapper.chmod(0o755)

    def serve(
        self,
        alias: str,
        address: str,
        env: Mapping[str, str],
        *,
        port: int | None = None,
        known: bool = True,
        launch: Callable[[list[str]], subprocess.Popen[bytes]] | None = None,
    ) -> None:
        """Starts a server at `address` whose sessions have that environment. `launch`: how, where not simply here."""
        port = port or _free_port(address)
        host_key = self._new_key(f"host-{alias}")
        authorized = self.dir / f"authorized-{alias}"
        authorized.write_text(_public(self.key))
        settings = " ".join(f'"{name}={value}"' for name, value in env.items())
        config = self.dir / f"sshd-{alias}"
        config.write_text(
            f"ListenAddress {address}\nPort {port}\nHostKey {host_key}\nAuthorizedKeysFile {authorized}\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nSetEnv {settings}\n"
        )
        if os.geteuid() == 0:
            PRIVILEGE_DIR.mkdir(exist_ok=True)
        assert SSHD is not None
        log = self.dir / f"log-{alias}"
        self._servers[alias] = (launch or subprocess.Popen)([SSHD, "-D", "-E", str(log), "-f", str(config)])
        self.alias(alias, address, port)
        if known:
            public = " ".join(_public(host_key).split()[:2])
            with self.known_hosts.open("a") as file:
                file.write(f"[{address}]:{port} {public}\n")
        until(lambda: log.exists() and b"Server listening" in log.read_bytes(), f"sshd {alias} listens")

    def alias(self, alias: str, address: str, port: int) -> None:
        """Lets the client know a host by that name."""
        with self.config.open("a") as file:
            file.write(
                f"Host {alias}\n  HostName {address}\n  Port {port}\n  User {getpass.getuser()}\n"
                f"  IdentityFile {self.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
                f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile /dev/null\n"
            )

    def sessions(self, alias: str) -> list[int]:
        """Pids of the server's open connections."""
        import psutil

        with contextlib.suppress(psutil.Error):
            return [child.pid for child in psutil.Process(self._servers[alias].pid).children()]
        return []

    def cut(self, alias: str) -> None:
        """Ends the server's open connections, as a link that is reset does."""
        for pid in self.sessions(alias):
            os.kill(pid, signal.SIGKILL)

    def program(self, name: str, script: str) -> Path:
        """A shell script."""
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def close(self) -> None:
        """Ends the servers and their connections."""
        import psutil

        for server in self._servers.values():
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(server.pid).children(recursive=True):
                    if child.name().startswith("sshd"):
                        child.kill()
            server.kill()
            server.wait()

    def _new_key(self, name: str) -> Path:
        path = self.dir / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)], check=True)
        return path


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def _public(key: Path) -> str:
    return key.with_name(f"{key.name}.pub").read_text()
