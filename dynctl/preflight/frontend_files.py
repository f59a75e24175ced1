"""The files that the frontend will read, before any engine is started."""

from __future__ import annotations

from pathlib import Path

from dynctl.frontend.keys import read_keys
from dynctl.frontend.tls import read_tls
from dynctl.topology.schema import Topology


def check_frontend_files(topology: Topology, node: str | None) -> None:
    """UsageError for keys or a certificate that can't be used, where this node has the frontend."""
    front = topology.frontend
    if topology.frontend_node not in (None, node):
        return
    read_keys(Path(front.api_keys_file) if front.api_keys_file else None)
    if front.tls:
        read_tls(Path(front.tls.cert), Path(front.tls.key))
