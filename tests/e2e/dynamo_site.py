"""Where Dynamo's tests run: its environment, etcd and NATS. What is missing skips them, and fails them in CI."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from dynctl.engines.environment import default_python
from dynctl.engines.tiny import ensure_tiny_model
from tests.integration.run_harness import MARK, Home, T, until

ETCD, NATS = "etcd", "nats-server"
_PACKAGES = {ETCD: "etcd-server", NATS: "nats-server"}
_OTHERS_PLANES = ("DYN_", "ETCD_", "NATS_")


def missing(reason: str) -> None:
    """Skips the test for that reason; fails it in CI, where everything has to be there."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI nothing of Dynamo's may be missing: {reason}", pytrace=False)
    pytest.skip(reason)


def dynamo_python() -> str:
    """The interpreter of the environment that `make engine ENGINE=dynamo` built."""
    python = default_python("dynamo")
    if python is None:
        missing("no environment with Dynamo: run `make engine ENGINE=dynamo`")
    return str(python)


def server(name: str) -> str:
    """The path of `etcd` or `nats-server`."""
    path = shutil.which(name)
    if path is None:
        missing(f"no {name} on this machine: apt-get install {_PACKAGES[name]}")
    return str(path)


@contextmanager
def dynamo_home(*servers: str) -> Iterator[Home]:
    """A world for runs of Dynamo's engines, on a machine that has these servers; at the end nothing of it is alive."""
    for name in servers:
        server(name)
    python = dynamo_python()
    home = Home(python, ensure_tiny_model(python, print))
    for name in [name for name in home.env if name.startswith(_OTHERS_PLANES)]:
        del home.env[name]
    try:
        yield home
    finally:
        home.close()


def mockers(control: T | None = None, **more: object) -> T:
    """Changes to `Home`'s topology that make its workers mockers, on these planes."""
    return {"engine": "dynamo-mocker", **({"control": control} if control else {}), **more}


class Outside:
    """A server that is no part of any run: started, killed and started again, with the same port and data."""

    def __init__(self, argv: Sequence[str], home: Home, url: str, ready: str) -> None:
        self.url, self._argv, self._ready = url, list(argv), ready
        # its environment is not the home's: what a test leaves is looked for by that
        self._env = {name: value for name, value in os.environ.items() if name != MARK}
        self._log = home.dir / f"{Path(argv[0]).name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._argv, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(self._answers, f"{self._argv[0]} answers: {self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        """kill -9, and its end."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(self._ready, timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def outside_etcd(home: Home) -> Iterator[Outside]:
    """An etcd of nobody's, with its data in the home."""
    port, peer = home.free_port(), home.free_port()
    url, peers = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    argv = [server(ETCD), "--data-dir", str(home.dir / "outside-etcd"), "--log-level", "warn"]
    argv += ["--listen-client-urls", url, "--advertise-client-urls", url]
    argv += [
        "--listen-peer-urls",
        peers,
        "--initial-advertise-peer-urls",
        peers,
        "--initial-cluster",
        f"default={peers}",
    ]
    with _running(Outside(argv, home, url, f"{url}/health")) as etcd:
        yield etcd


@contextmanager
def outside_nats(home: Home) -> Iterator[Outside]:
    """A NATS server of nobody's, with JetStream."""
    port, monitor = home.free_port(), home.free_port()
    argv = [server(NATS), "--addr", "127.0.0.1", "--port", str(port), "--http_port", str(monitor)]
    argv += ["--jetstream", "--store_dir", str(home.dir / "outside-nats")]
    with _running(Outside(argv, home, f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor}/healthz")) as nats:
        yield nats


@contextmanager
def _running(outside: Outside) -> Iterator[Outside]:
    outside.start()
    try:
        yield outside
    finally:
        outside.kill()
