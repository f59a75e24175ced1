"""Whether what is installed beside the engine's interpreter is there, and goes together. Pure."""

from __future__ import annotations

from dynctl.engines.base import EngineAdapter
from dynctl.errors import HostError
from dynctl.plan.facts import EngineFacts
from dynctl.topology.schema import Topology


def refuse_incomplete_engine(engine: EngineAdapter, topology: Topology, installed: EngineFacts) -> None:
    """HostError for a package that is missing, or of a version that does not go with the others."""
    where = f"python: {installed.python}"
    packages = engine.packages(topology)
    missing = [name for name in packages if getattr(installed, name) is None]
    build = "make engine ENGINE=dynamo" if "dynamo" in packages else "make engine"
    if missing:
        raise HostError(
            f"the engine's interpreter has no {' and no '.join(missing)}",
            where=where,
            why="decode fetches the KV cache through NIXL" if missing == ["nixl"] else None,
            fix=f"install it there, or leave `python` out and run `{build}`",
        )
    if not engine.together:
        return
    router = getattr(installed, engine.router)
    if router == "unknown":
        return
    wanted = next((parts for begin, parts in engine.together.items() if _begins(router, begin)), None)
    if wanted is None:
        raise HostError(
            f"{engine.router} {router} is not one that dynctl knows to drive",
            where=where,
            why=f"it knows {', '.join(f'{begin}.x' for begin in engine.together)}",
            fix=f"leave `python` out and run `{build}`",
        )
    wrong = {
        name: (found, version)
        for name, version in wanted.items()
        if name in packages and not _begins(found := getattr(installed, name), version)
    }
    if wrong:
        raise HostError(
            ", ".join(
                f"{name} {found} does not go with {engine.router} {router}" for name, (found, _) in wrong.items()
            ),
            where=where,
            why=", ".join(f"it goes with {name} {version}" for name, (_, version) in wrong.items()),
            fix=f"install that there, or leave `python` out and run `{build}`",
        )


def _begins(version: str, family: str) -> bool:
    """Whether a version is of a family: `0.31.0+cpu` of `0.31`, but `0.310` is not. What is not known passes."""
    return version in ("unknown", family) or version.startswith((f"{family}.", f"{family}+", f"{family}rc"))
