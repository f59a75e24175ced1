"""The words and colours of states and paths. Colour only repeats what a word says."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dynctl.fabric.verdict import lane_class
from dynctl.telemetry.status import Evidence, PairStatus, ProcessStatus, Verdict
from dynctl.ui.figures import format_indexes

STATE_STYLE: dict[str, str] = {
    "ready": "bold green",
    "starting": "cyan",
    "loading": "cyan",
    "pending": "bright_black",
    "degraded": "bold yellow",
    "unhealthy": "bold yellow",
    "unsupervised": "bold yellow",
    "lost": "bold yellow",
    "missing": "cyan",
    "backing off": "yellow",
    "draining": "magenta",
    "stopping": "magenta",
    "stopped": "bright_black",
    "failed": "bold red",
    "crashed": "bold red",
}
VERDICT_STYLE: dict[str, str] = {
    "nvlink": "bold green",
    "rdma": "bold green",
    "shm": "green",
    "mixed": "yellow",
    "tcp": "yellow",
    "unknown": "bright_black",
}
EVENT_STYLE: dict[str, str] = {
    "error": "red",
    "warning": "yellow",
    "health": "yellow",
    "gate": "green",
    "pair": "green",
    "verify": "green",
}
MARK: dict[str, str] = {
    "ready": "●",
    "degraded": "▲",
    "failed": "✗",
    "crashed": "✗",
    "lost": "✗",
    "stopped": "○",
    "pending": "○",
    "missing": "○",
}
"""A sign beside a state; any other is on its way: `◐`."""

_LANE = re.compile(r"(?<![\w/])([a-z][a-z0-9_]*/[^\s,;|()]+)")
_SHM_NAMES = {"cma": "CMA", "knem": "KNEM", "xpmem": "XPMEM", "sysv": "System V", "posix": "POSIX"}


def mark(state: str) -> str:
    """The sign of a state."""
    return MARK.get(state, "◐")


def verdict_words(verdict: Verdict, evidence: Iterable[Evidence] = ()) -> str:
    """A verdict with what carries it, by its evidence: `shm (CMA)`, `rdma (mlx5_0, mlx5_1)`, `tcp (loopback)`."""
    carriers: dict[str, None] = {}
    for item in evidence:
        if item.kind in ("used", "planned"):
            for lane in _LANE.findall(" ".join(item.line.split(" | ")[-2:])):
                if lane_class(lane) is not None:
                    carriers[_carrier(lane)] = None
    names = [name for name in carriers if name]
    if len(names) > 3:
        names = [*names[:2], f"+{len(names) - 2}"]
    return f"{verdict} ({', '.join(names)})" if names else verdict


def _carrier(lane: str) -> str:
    transport, device = lane.split("/", 1)
    device = device.split("/", 1)[0].split(":", 1)[0]
    if transport in _SHM_NAMES:
        return _SHM_NAMES[transport]
    if transport == "tcp":
        return "loopback" if device == "lo" else device
    return "CUDA IPC" if transport == "cuda_ipc" else device


def pair_name(pair: PairStatus) -> str:
    """`prefill-0 → decode-0`."""
    return f"{pair.from_} → {pair.to}"


def pins(process: ProcessStatus, width: int = 200) -> str:
    """Where a process sits: `gpu 0-3  mlx5_0,1  numa 0  cores 0-15✓`, in two lines if it is longer than `width`.

    `✓`: its threads and its memory were found there, `✗`: they were not. Memory has words of its own where it comes
    from other nodes than the cores'. Empty if it sits nowhere in particular.
    """
    parts: list[str] = []
    if process.gpus:
        parts.append(f"gpu {format_indexes(process.gpus)}")
    if process.nics:
        parts.append(nic_names(process.nics))
    if process.numa is not None:
        parts.append(f"numa {process.numa}")
    if process.cpus:
        parts.append(f"cores {process.cpus}")
    if process.memory_nodes and process.memory_nodes != (process.numa,):
        parts.append(f"mem {format_indexes(process.memory_nodes)}")
    if process.bound and parts:
        parts[-1] += "✓" if process.bound.ok else "✗"  # no space: a narrow column would break there
    whole = "  ".join(parts)
    if len(whole) <= width or not process.gpus:
        return whole
    cut = 1 + bool(process.nics)
    return "  ".join(parts[:cut]) + "\n" + "  ".join(parts[cut:])


def nic_names(nics: Iterable[str]) -> str:
    """`mlx5_0-3` from names that differ in their last number alone; others joined by commas."""
    names = list(nics)
    found = [re.fullmatch(r"(.*?)(\d{1,6})", name) for name in names]
    stems = {match[1] for match in found if match}
    if len(names) > 1 and len(stems) == 1 and all(found):
        return f"{stems.pop()}{format_indexes(int(match[2]) for match in found if match)}"
    return ",".join(names)


def port_of(process: ProcessStatus) -> int | None:
    """The port that clients of a process speak to: the one called http or api, else the first."""
    for name in ("http", "api", "port"):
        if name in process.ports:
            return process.ports[name]
    return next(iter(process.ports.values()), None)
