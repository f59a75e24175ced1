"""Unix sockets that an engine makes for its own processes: a directory for each run, which goes with it.

By default they lie in the temporary directory under random names, where nobody can tell whose they are: an engine
killed hard leaves them behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from dynctl.errors import HostError
from dynctl.store import paths

NAME_BYTES = 36
"""vLLM names a socket by a UUID."""


def directory(run_id: str, base: Path | None = None) -> Path:
    """That run's, below a runtime directory (this environment's own, if none is given)."""
    return (base or paths.runtime_dir()) / run_id[:12]


def variables(name: str | None, run_id: str) -> dict[str, str]:
    """Makes the directory and names it in the environment variable `name`; nothing where a path would be too long."""
    if name is None:
        return {}
    try:
        path = directory(run_id)
        if len(os.fsencode(path)) + 1 + NAME_BYTES > paths.SOCKET_PATH_BYTES:
            return {}
        paths.private_dir(path)
    except HostError:
        return {}  # a full disk: the engine's own place will do
    return {name: str(path)}


def remove(run_id: str, bases: Iterable[Path] = ()) -> None:
    """Removes those of a run whose processes have ended, below these and this environment's own. Never fails."""
    with contextlib.suppress(HostError):  # the temporary directory is gone: so are they
        shutil.rmtree(directory(run_id), ignore_errors=True)
    for base in bases:
        shutil.rmtree(directory(run_id, base), ignore_errors=True)
