"""How a node is reached: the ssh destination, and the argv that runs dynctl there. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Container
from typing import NamedTuple

from dynctl.topology.schema import Topology

CONNECT_S = 10
OPTIONS = (
    "BatchMode=yes",  # nobody could answer a question
    f"ConnectTimeout={CONNECT_S}",
    "ServerAliveInterval=15",  # a link that is cut is noticed after a minute
    "ServerAliveCountMax=4",
    "ControlMaster=no",  # an existing master is used; one of our own would outlive us and keep our pipes open
    "ClearAllForwardings=yes",
    "ForwardX11=no",
    "ForwardAgent=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "LogLevel=ERROR",
)
NODE_COMMAND = "_node"
LOCAL_BIN = '"$HOME/.local/bin/dynctl"'
NOT_FOUND = "dynctl is not there"
NOT_FOUND_CODE = 127


class Route(NamedTuple):
    """The way to a node. `destination`: as ssh takes it; None for this host itself."""

    node: str
    destination: str | None

    def __str__(self) -> str:
        return f"node {self.node} ({self.destination})" if self.destination else f"node {self.node}"


def routes(topology: Topology, own: Container[str]) -> dict[str, Route]:
    """The way to every node by name. Where no `ssh` is written, an address among `own` is this host itself."""
    found = {}
    for name, node in topology.nodes.items():
        here = node.ssh is None and node.address in own
        found[name] = Route(name, None if here else node.ssh or node.address)
    return found


def remote_command(here: str | None, stated: str | None = None) -> str:
    """The shell line for the far side, whatever login shell reads it: the first dynctl that is there becomes the node.

    `stated`: the only path to try. `here`: the path of this dynctl, the likeliest where homes or images are shared;
    then the PATH, which is short without a login, and where `pip install --user` and pipx put commands.
    """
    guesses = [*([shlex.quote(here)] if here else []), "dynctl", LOCAL_BIN]
    tried = [shlex.quote(stated)] if stated else guesses
    look = f'if command -v "$d" >/dev/null 2>&1; then exec "$d" {NODE_COMMAND}; fi'
    script = f'for d in {" ".join(tried)}; do {look}; done; echo "{NOT_FOUND}: PATH=$PATH" >&2; exit {NOT_FOUND_CODE}'
    return f"exec sh -c {shlex.quote(script)}"


def ssh_argv(ssh: str, destination: str, command: str) -> list[str]:
    """The whole command. Nothing of a run's secrets or of its file is in it."""
    options = [part for option in OPTIONS for part in ("-o", option)]
    return [ssh, "-T", *options, "--", destination, command]
