"""Where a client connects to."""

from __future__ import annotations

import functools
from typing import NamedTuple
from urllib.parse import urlsplit

from dynctl.errors import UsageError


class Origin(NamedTuple):
    """Host, port and TLS of a server, and the path prefix of its URL (without a slash at its end)."""

    host: str
    port: int
    tls: bool = False
    prefix: bytes = b""

    @property
    def authority(self) -> bytes:
        """What goes into the Host header."""
        return _authority(self.host, self.port)


@functools.lru_cache(maxsize=1024)
def _authority(host: str, port: int) -> bytes:
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


def parse_origin(url: str) -> Origin:
    """The origin of an http or https URL. Raises UsageError for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"not a URL: {url!r}", why=str(error)) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"not an http URL: {url!r}", fix="write it as http://HOST:PORT")
    if parts.username or parts.query or parts.fragment:
        raise UsageError(f"user, query and fragment have no place in {url!r}", fix="write it as http://HOST:PORT")
    tls = parts.scheme == "https"
    return Origin(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/").encode())
