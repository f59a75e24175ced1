"""`dynctl logs`: what the processes of a run wrote, UCX's protocol tables left out unless asked for."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

from dynctl.cli import choose
from dynctl.errors import UsageError
from dynctl.fabric.ucx_log import is_ucx_line
from dynctl.store.run import RunStore, known_runs

POLL_S = 0.2


def logs(name: str | None, process: str | None, *, follow: bool, lines: int, ucx: bool) -> int:
    """Prints the last lines of each log, then what follows."""
    store, process = _which(name, process)
    chosen = _paths(store, process)
    offsets = {path: _print_last(path, lines, named=len(chosen) > 1, ucx=ucx) for path in chosen}
    while follow:
        time.sleep(POLL_S)
        for path in _paths(store, process):
            offsets[path] = _print_new(path, offsets.get(path, 0), named=len(offsets) > 1, ucx=ucx)
    return 0


def _which(name: str | None, process: str | None) -> tuple[RunStore, str | None]:
    """`logs prefill-0` means a process of the only run, unless a run has that name."""
    if name and not process and name not in {run.name for run in known_runs()}:
        return choose.run(None), name
    return choose.run(name), process


def _paths(store: RunStore, process: str | None) -> list[Path]:
    found = sorted(store.logs.glob("*.log"))
    if process is None:
        return found
    if store.log_path(process) not in found:
        known = ", ".join(path.stem for path in found) or "none"
        raise UsageError(f"`{store.name}` has no log of `{process}`", why=f"there are: {known}")
    return [store.log_path(process)]


def _print_last(path: Path, lines: int, *, named: bool, ucx: bool) -> int:
    kept: deque[str] = deque(maxlen=lines)
    with path.open("rb") as file:
        for raw in file:
            line = raw.decode(errors="replace").rstrip()
            if ucx or not is_ucx_line(line):
                kept.append(line)
        end = file.tell()
    for line in kept:
        _print(path, line, named=named)
    return end


def _print_new(path: Path, offset: int, *, named: bool, ucx: bool) -> int:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(offset if size >= offset else 0)
        data = file.read()
    complete = data[: data.rfind(b"\n") + 1]
    for raw in complete.splitlines():
        line = raw.decode(errors="replace").rstrip()
        if ucx or not is_ucx_line(line):
            _print(path, line, named=named)
    return (offset if size >= offset else 0) + len(complete)


def _print(path: Path, line: str, *, named: bool) -> None:
    print(f"{path.stem:<12} {line}" if named else line, flush=True)  # noqa: T201
