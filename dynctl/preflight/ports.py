"""Which ports are taken, found out by binding them, and who holds them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Collection


def taken_ports(wanted: Collection[int], planned: dict[int, str], address: str = "127.0.0.1") -> dict[int, str]:
    """Those of the `wanted` ports that a run can't have: bound by somebody now, or `planned` by another live run."""
    bound = {port: held for port in wanted if (held := holder(port, address))}
    return {**{port: run for port, run in planned.items() if port in wanted}, **bound}


def holder(port: int, address: str = "127.0.0.1") -> str | None:
    """Who holds the port, in words; None when it can be bound."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        # as servers do: a port that is merely in TIME_WAIT counts as free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return _owner(port) or f"an unknown process ({error.strerror})"
    return None


def _owner(port: int) -> str | None:
    import psutil  # only where a port is taken

    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                return _describe(connection.pid)
    return None


def _describe(pid: int | None) -> str | None:
    import psutil

    if pid is None:
        return None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return f"pid {pid} ({' '.join(process.cmdline())[:80] or process.name()})"
    return f"pid {pid}"
