"""HOST[:PORT] as it is typed. Pure."""

from __future__ import annotations

from dynctl.engines.spec import format_address
from dynctl.errors import UsageError

__all__ = ["DEFAULT_PORT", "LOOPBACK", "format_address", "parse_address"]

DEFAULT_PORT = 18600
LOOPBACK = "127.0.0.1"


def parse_address(text: str, option: str) -> tuple[str, int]:
    """Host and port of `10.0.0.1`, `host:18600`, `[fe80::1%eth0]:18600`, `::1`. UsageError for anything else."""
    host, port = text.strip(), ""
    if host.startswith("["):
        host, closed, rest = host[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise _wrong(text, option, "an IPv6 address with a port is written [ADDRESS]:PORT")
        port = rest[1:] if rest else ""
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
        if not port:
            raise _wrong(text, option, "there is no port behind the colon")
    if not host or any(c.isspace() or c in "/@" for c in host):
        raise _wrong(text, option, "it names no host")
    if not port:
        return host, DEFAULT_PORT
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise _wrong(text, option, f"{port} is not a port (1-65535)")
    return host, int(port)


def _wrong(text: str, option: str, why: str) -> UsageError:
    return UsageError(
        f"`{text}` is not HOST[:PORT]", where=option, why=why, fix=f"for example {option} 10.0.0.1:{DEFAULT_PORT}"
    )
