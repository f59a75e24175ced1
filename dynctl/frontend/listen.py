"""Where the frontend listens: an address with a port, or a unix socket."""

from __future__ import annotations

import errno
import ipaddress
import socket
import stat
from pathlib import Path

from dynctl.errors import UsageError


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A listening socket, `shared` with those of `bind_beside`. Raises UsageError, naming the holder of a taken port
    where that can be seen."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"can't listen on {host}", why=str(error)) from None
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        if shared:  # only now, so that a port is refused which another frontend shares among its own
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.listen()
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise UsageError(f"can't listen on {host}:{port}", why=error.strerror) from None
        raise UsageError(
            f"port {port} on {host} is in use", why=_holder(port), fix="stop that process or choose another --port"
        ) from None
    return sock


def bind_beside(first: socket.socket) -> socket.socket:
    """Another listening socket at the same place: the kernel spreads connections over them. Of a unix socket, which has
    no such thing, it is the same one: who is free takes the connection."""
    if first.family == socket.AF_UNIX:
        return first.dup()
    sock = socket.socket(first.family, first.type, first.proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind(first.getsockname())
        sock.listen()
    except OSError as error:
        sock.close()
        raise UsageError("can't share the port between processes", why=error.strerror) from None
    return sock


def bind_unix(path: Path) -> socket.socket:
    """A listening unix socket; one that nobody listens on any more is replaced. Who may connect follows from the umask
    and the directory. Raises UsageError."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        sock.listen()
    except OSError as error:
        sock.close()
        raise UsageError("can't listen on this socket", where=str(path), why=error.strerror or str(error)) from None
    return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise UsageError("there is a file in the socket's place", where=str(path), fix="choose another --uds")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError("can't listen on this socket", where=str(path), why=error.strerror) from None
        else:
            raise UsageError("another process listens on this socket", where=str(path), fix="choose another --uds")


def is_loopback(host: str | None) -> bool:
    """Whether only this machine has that address; None is a unix socket's."""
    if host in (None, "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.removeprefix("::ffff:")).is_loopback
    except ValueError:
        return False


def url_of(sock: socket.socket, scheme: str) -> str:
    """How the log names the place."""
    if sock.family == socket.AF_UNIX:
        return f"{scheme}+unix://{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _holder(port: int) -> str | None:
    """Who listens on a port, if this user may see it."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", None) == port
            if listens and connection.pid:
                return f"held by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return None
    return None
