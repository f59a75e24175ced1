"""What a support bundle holds, part by part. A part that can't be had says why; it never costs the others."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

import dynctl
from dynctl.fabric.checks.judge import judge
from dynctl.fabric.checks.observe import observe
from dynctl.fabric.checks.values import Need
from dynctl.fabric.ucx_log import UcxReader
from dynctl.hardware.values import Hardware
from dynctl.preflight import engine
from dynctl.preflight.gather import this_machine
from dynctl.store.rotation import generations
from dynctl.store.run import RunStore

TAIL_BYTES = 1 << 20
OLDER_BYTES = 256 << 10
"""Of a log that was rotated away, or kept from before a restart."""
EVENTS_BYTES = 8 << 20
MOST_LOGS = 300

Part = tuple[str, str, Callable[[], object]]
"""File name, what it is, and how to get it: text as `str`, anything else as a JSON document."""


class Machine:
    """What is looked up of this machine, once for several parts."""

    def __init__(self, store: RunStore | None) -> None:
        self._store = store
        self._hardware: Hardware | None = None

    def hardware(self) -> Hardware:
        """The hardware now."""
        if self._hardware is None:
            self._hardware = this_machine()
        return self._hardware

    def checks(self) -> object:
        """check-rdma's rows of this node: they read, and change nothing. No transfer is made."""
        wanted = Need(path="tcp")
        if self._store:
            from dynctl.cli.check_rdma import need

            plan = self._store.plan()
            wanted = need(plan, self.hardware(), plan.transport.required)
        return judge(observe(Path("/"), wanted), wanted)

    def versions(self) -> dict[str, object]:
        """Of everything that takes part. None: not there, or not to be found out."""
        return {
            "dynctl": dynctl.__version__,
            "started_by_dynctl": self._store.record().dynctl_version if self._store else None,
            "python": platform.python_version(),
            "frozen": bool(getattr(sys, "frozen", False)),
            "kernel": " ".join(os.uname()[:1] + os.uname()[2:]),
            "system": _system(),
            "driver": self.hardware().driver,
            "cuda": self.hardware().cuda,
            **self._engine(),
            "ucx": self._ucx(),
        }

    def _engine(self) -> dict[str, object]:
        python = next((spec.argv[0] for spec in self._store.plan().workers()), None) if self._store else None
        python = python or engine.find_python(None, "vllm")
        return {"engine_python": python, **msgspec.to_builtins(engine.look_up(python))}

    def _ucx(self) -> list[str]:
        """The versions that the engines said they loaded."""
        found = set()
        for path in sorted(self._store.ucx.glob("*.log"))[:MOST_LOGS] if self._store else ():
            reader = UcxReader(path.name)
            for line in tail(path, TAIL_BYTES).splitlines():
                reader.feed(line)
            if reader.version:
                found.add(reader.version)
        return sorted(found)


def parts(store: RunStore | None, status: Callable[[], object]) -> Iterator[Part]:
    """Every part, the small ones first. `status`: how to get the run's."""
    machine = Machine(store)
    yield "versions.json", "dynctl, engine, NIXL, UCX, kernel, driver", machine.versions
    if store:
        yield "status.json", "the run as it is now, or as it ended", status
        yield "plan.json", "every process with its place, environment and argv", store.plan
        yield "run.json", "when it was started, and by what", store.record
        if (store.dir / "topology.json").is_file():
            yield (
                "topology.json",
                "the topology",
                lambda: msgspec.json.decode((store.dir / "topology.json").read_bytes()),
            )
    yield "hardware.json", "GPUs, NICs, NUMA nodes, holders", machine.hardware
    yield "check-rdma.json", "the rows of check-rdma that only read", machine.checks
    if store:
        yield "events.jsonl", "what happened", lambda: _events(store)
        yield from _logs(store)


def _events(store: RunStore) -> str:
    path = store.dir / "events.jsonl"
    return "".join(tail(part, EVENTS_BYTES) for part in (*reversed(generations(path)[:1]), path) if part.is_file())


def _logs(store: RunStore) -> Iterator[Part]:
    """The ends of all logs, and of what was kept of earlier ones."""
    for folder, what in ((store.logs, "log"), (store.ucx, "UCX's lines")):
        for path in sorted(folder.glob("*.log"))[:MOST_LOGS]:
            yield f"{folder.name}/{path.name}", f"{what} of {path.stem}", partial(tail, path, TAIL_BYTES)
            for older in generations(path)[:1]:
                yield f"{folder.name}/{older.name}", f"{what} of {path.stem}, before", partial(tail, older, OLDER_BYTES)


def tail(path: Path, most_bytes: int) -> str:
    """The end of a file, from the beginning of a line."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - most_bytes))
        data = file.read(most_bytes)
    if size > most_bytes:
        left_out = size - most_bytes + data.find(b"\n") + 1
        data = f"({left_out} bytes before this are left out)\n".encode() + data[data.find(b"\n") + 1 :]
    return data.decode(errors="replace")


def _system() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None
