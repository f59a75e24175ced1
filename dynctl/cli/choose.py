"""Which topology file and which run a command means when its user does not say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import dynctl
from dynctl.errors import RunStateError, UsageError

if TYPE_CHECKING:
    from dynctl.hardware.values import Hardware
    from dynctl.store.run import RunStore
    from dynctl.topology.schema import Topology

DEFAULT_FILE = Path("topology.yaml")


def topology(file: Path | None, sets: list[str], hardware: Hardware | None = None) -> Topology:
    """The topology in FILE, in ./topology.yaml, or what `init` would write for this machine, or `hardware`."""
    from dynctl.topology.load import load, load_text

    if file or DEFAULT_FILE.exists():
        return load(file or DEFAULT_FILE, sets)
    from dynctl.hardware.discover import discover

    machine = hardware or discover()
    if not machine.has_gpu():
        return load(profiles_dir() / "cpu-1p1d.yaml", sets)
    from dynctl.preflight.fitting import fitting

    return load_text(fitting(machine).text, Path("(what fits this machine)"), sets)


def profiles_dir() -> Path:
    """The ready-made topologies: inside the installed package, or beside it in a checkout."""
    package = Path(dynctl.__file__).parent
    inside = package / "profiles"
    return inside if inside.is_dir() else package.parent / "profiles"


def run(name: str | None) -> RunStore:
    """The run of that name; without one, the only run alive, supervised or not, or the only one that is known."""
    from dynctl.runtime.recall import live_processes
    from dynctl.store.run import is_supervised, known_runs

    runs = known_runs()
    if name is not None:
        found = [store for store in runs if store.name == name]
        if not found:
            known = ", ".join(store.name for store in runs) or "none"
            raise RunStateError(
                f"there is no run `{name}`",
                why=f"runs known on this machine: {known}",
                fix="`dynctl down --orphans` ends what runs without a supervisor, its files removed or not",
            )
        return found[0]
    alive = [store for store in runs if is_supervised(store.name)] or [store for store in runs if live_processes(store)]
    if len(alive) > 1:
        raise UsageError("several runs: name one", why=", ".join(store.name for store in alive))
    if not alive and len(runs) != 1:
        ended = f"runs that have ended: {', '.join(store.name for store in runs)}" if runs else None
        raise RunStateError("nothing is running", why=ended, fix="`dynctl up` starts a deployment")
    return (alive or runs)[0]
