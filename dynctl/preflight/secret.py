"""The secret that the nodes of a run share: from a private file, or the environment."""

from __future__ import annotations

import os
import stat

from dynctl.environ import SECRET_VARIABLE
from dynctl.errors import UsageError
from dynctl.topology.schema import Topology

SHORTEST = 16
LONGEST_BYTES = 4096
MAKE = "(umask 077; head -c 32 /dev/urandom | base64 > secret), and copy it to every node"


def load_secret(topology: Topology) -> str | None:
    """The secret; None where one node needs none. UsageError where it is missing, too short, or others may read it."""
    if len(topology.nodes) < 2:
        return None
    if topology.secret_file:
        where = topology.where("secret_file")
        text = _read(topology.secret_file, where)
    else:
        where, text = f"${SECRET_VARIABLE}", os.environ.get(SECRET_VARIABLE, "")
        if not text:
            raise UsageError(
                "the nodes share no secret",
                where=topology.where("nodes"),
                why="it guards what engines and supervisors serve to other nodes",
                fix=f"`secret_file: ./secret`, or set {SECRET_VARIABLE}; to make one: {MAKE}",
            )
    text = text.strip()
    if len(text) < SHORTEST:
        raise UsageError(f"the secret is shorter than {SHORTEST} characters", where=where, fix=f"make one: {MAKE}")
    return text


def _read(path: str, where: str) -> str:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            data = file.read(LONGEST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", where=where, fix=f"make one: {MAKE}") from error
    if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
        raise UsageError(
            f"{path} is not private",
            where=where,
            why="others may read it, or it is another user's",
            fix=f"chmod 600 {path}, as its owner",
        )
    if len(data) > LONGEST_BYTES:
        raise UsageError(f"{path} is too long for a secret", where=where, fix=f"make one: {MAKE}")
    return data.decode(errors="replace")
