"""What else than processes a run may leave: ports listened on, shared memory, sockets in temporary places."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import psutil

from dynctl.runtime.shared_memory import mapped_by
from tests.integration.run_harness import MARK, Home

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written
NAMES = ("psm_*", "sem.mp-*")
"""Of segments and semaphores, as Python's multiprocessing makes them, which vLLM uses."""
FAKE = "psm_fake_"
"""Of the fake engines: another test's may come and go at the same time as real ones, and the other way round."""
SOCKETS = "????????-????-4???-????-????????????"
"""As vLLM names those of its own."""
TEMPORARY = Path("/tmp")  # noqa: S108 - looked at, not written
ENGINES_OWN = ("dynctl-", "vllm_dist_", "torchinductor_")
"""Names in the temporary directory that hold up nobody: dynctl's own, the files by which vLLM's processes first meet,
and torch's cache. A vLLM that is killed leaves them, whoever kills it."""


class Leftovers:
    """What is there now, so that what comes on top of it is named."""

    def __init__(self, home: Home, *, fake: bool) -> None:
        self._home = home
        self._shared = [(SHARED_MEMORY, name) for name in ((f"{FAKE}*",) if fake else NAMES)]
        self._shared += [] if fake else [(TEMPORARY, SOCKETS)]
        self._not_ours = ENGINES_OWN if fake else (*ENGINES_OWN, FAKE)
        self._before = self._files()

    def left(self) -> list[str]:
        """In words what is there that was not before: files, and ports of the home's plans that are listened on."""
        used = mapped_by(psutil.pids())  # of whoever lives: not left by one that is gone
        return [*sorted(self._files() - self._before - used), *(f"port {port}" for port in sorted(self._ports()))]

    def _files(self) -> set[str]:
        places = [(self._home.dir / "tmp", "*"), *self._shared]
        found = [path for place, pattern in places for path in place.glob(pattern)]
        return {str(path) for path in found if not path.name.startswith(self._not_ours)}

    def _ports(self) -> set[int]:
        planned: set[int] = set()
        for path in (self._home.dir / "state").glob("dynctl/*/*/plan.json"):
            with contextlib.suppress(OSError, ValueError):
                processes = json.loads(path.read_text())["processes"]
                planned |= {port for process in processes for port in process["ports"].values()}
        listening = {c.laddr.port: c.pid for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        return {port for port in planned & listening.keys() if not self._others(listening[port])}

    def _others(self, pid: int | None) -> bool:
        """Whether it is of another test's world: ports that are free again are anybody's."""
        with contextlib.suppress(OSError):
            found = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            marks = [word for word in found if word.startswith(f"{MARK}=".encode())]
            return bool(marks) and f"{MARK}={self._home.dir}".encode() not in marks
        return False
