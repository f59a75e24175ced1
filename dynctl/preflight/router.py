"""Where vllm-router is: a package of its own, which is installed apart from the engines."""

from __future__ import annotations

from dynctl.preflight import peer_tool
from dynctl.store import paths
from dynctl.topology.schema import Topology

VERSION = "0.1.17"
"""The one that was tried; `scripts/bench_frontend.py` installs it into the user's cache."""


def find_router(topology: Topology) -> str | None:
    """The command, where the topology asks for it: $VLLM_ROUTER, on $PATH, or in the user's cache. HostError."""
    if topology.router != "vllm-router":
        return None
    home = paths.cache_root() / "peers" / f"vllm-router-{VERSION}"
    return peer_tool.find(
        "vllm-router",
        command="vllm-router",
        option=topology.where("frontend", "kind"),
        install=f"`python3 -m venv {home} && {home}/bin/pip install vllm-router=={VERSION}`, or install it elsewhere",
        cached=str(home / "bin" / "vllm-router"),
    )
