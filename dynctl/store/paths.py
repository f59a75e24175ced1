"""Where a run leaves its files: durable ones by machine, lock and socket on a local file system."""

from __future__ import annotations

import os
import stat
import tempfile
import uuid
from pathlib import Path

from dynctl.errors import HostError

SOCKET_PATH_BYTES = 107
"""Longest path of a unix socket on Linux (sun_path less its NUL)."""


def state_root() -> Path:
    """`$XDG_STATE_HOME/dynctl/<machine-id>`: home directories are shared between nodes, so runs are kept by machine."""
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(base) / "dynctl" / machine_id()


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/dynctl`: engine environments, the tiny model."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "dynctl"


def run_dir(name: str) -> Path:
    """The run's durable directory."""
    return state_root() / name


def runtime_dir() -> Path:
    """A private directory on a local file system that outlives the login. HostError if somebody else owns it."""
    path = _runtime_base() / _installation()
    try:
        for part in (path.parent, path):
            part.mkdir(mode=0o700, exist_ok=True)  # of `parents=True` only the last would be private
            info = part.lstat()
            if stat.S_ISLNK(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
                raise HostError(
                    f"{part} is not a private directory of this user",
                    why="locks and control sockets of runs live there",
                    fix=f"remove it, or `chmod 700 {part}` if it is yours",
                )
    except OSError as error:
        raise HostError(f"can't make {path}: {error.strerror}", fix="set XDG_RUNTIME_DIR or TMPDIR") from error
    return path


def lock_path(name: str) -> Path:
    """The lock that a run's supervisor holds as long as it lives."""
    return runtime_dir() / f"{name}.lock"


def socket_path(name: str) -> Path:
    """The supervisor's control socket. HostError if the path is longer than a socket's may be."""
    path = runtime_dir() / f"{name}.sock"
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise HostError(f"the control socket's path is too long: {path}", fix="set a shorter TMPDIR")
    return path


def private_dir(path: Path) -> Path:
    """Makes `path` with mode 0700. HostError where that can't be done."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise HostError(
            f"can't write the state directory: {error.strerror}",
            where=str(path),
            fix="make it writable, or set XDG_STATE_HOME to a directory that is",
        ) from error
    return path


def machine_id() -> str:
    """This machine's id; its host name where there is none."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text:
            return text[:12]
    return os.uname().nodename


def boot_id() -> str:
    """This boot's id: pids of another boot mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def pid_namespace() -> str:
    """This pid namespace: pids of another one mean nothing here."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _runtime_base() -> Path:
    lingers = Path(f"/var/lib/systemd/linger/{os.environ.get('USER', '')}")
    xdg = os.environ.get("XDG_RUNTIME_DIR")
    if xdg and Path(xdg).is_dir() and os.environ.get("USER") and lingers.exists():
        return Path(xdg) / "dynctl"
    return Path(tempfile.gettempdir()) / f"dynctl-{os.getuid()}"


def _installation() -> str:
    """Runs of different state directories have locks and sockets of their own."""
    return uuid.uuid5(uuid.NAMESPACE_URL, str(state_root())).hex[:8]
