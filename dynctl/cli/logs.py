"""`dynctl logs`: what the processes of a run wrote, UCX's protocol tables left out unless asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from dynctl.cli import choose
from dynctl.errors import UsageError
from dynctl.fabric.ucx_log import is_ucx_line
from dynctl.store.follow import Follower
from dynctl.store.rotation import generations
from dynctl.store.run import RunStore, known_runs

POLL_S = 0.2


def logs(name: str | None, process: str | None, *, follow: bool, lines: int, ucx: bool) -> int:
    """Prints the last lines of each log, then what follows; through rotations, every line once."""
    store, process = _which(name, process)
    reading: dict[Path, Follower] = {}
    while True:
        chosen = _paths(store, process)
        for path in chosen:
            if path not in reading:
                reading[path] = Follower(path)
                first = _last(path, reading[path], lines, ucx=ucx, rest=not follow)
                _print(path, first, named=len(chosen) > 1)
            _print(path, _shown(reading[path].lines(), ucx=ucx), named=len(chosen) > 1)
        if not follow:
            return 0
        time.sleep(POLL_S)


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


def _last(path: Path, follower: Follower, lines: int, *, ucx: bool, rest: bool) -> Iterable[str]:
    """The last lines so far, those of the rotated log before them; with `rest` an unfinished one, too."""
    kept = deque(_shown(follower.lines(), ucx=ucx), maxlen=lines)
    if rest and follower.rest:
        kept.extend(_shown([follower.rest], ucx=ucx))
    for older in generations(path)[:1] if len(kept) < lines else ():
        before = deque(_shown(Follower(older).lines(), ucx=ucx), maxlen=lines - len(kept))
        kept.extendleft(reversed(before))
    return kept


def _shown(lines: Iterable[bytes], *, ucx: bool) -> Iterator[str]:
    for raw in lines:
        line = raw.decode(errors="replace").rstrip()
        if ucx or not is_ucx_line(line):
            yield line


def _print(path: Path, lines: Iterable[str], *, named: bool) -> None:
    for line in lines:
        print(f"{path.stem:<12} {line}" if named else line, flush=True)  # noqa: T201
