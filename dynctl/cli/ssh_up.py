"""`dynctl up --ssh`: the whole of a several-node deployment from one place."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dynctl.environ import SECRET_VARIABLE
from dynctl.errors import DynctlError, HostError, RuntimeFailure, UsageError
from dynctl.preflight.gather import self_command
from dynctl.preflight.secret import load_secret
from dynctl.preflight.this_node import own_addresses
from dynctl.ssh import code
from dynctl.ssh.channel import Channel, Inbox
from dynctl.ssh.fleet import Cut, Fleet
from dynctl.ssh.route import NODE_COMMAND, Route, remote_command, routes, ssh_argv
from dynctl.ssh.together import farewell
from dynctl.ssh.view import View
from dynctl.ssh.words import Check
from dynctl.topology.load import load_text, read_text
from dynctl.topology.schema import Topology

if TYPE_CHECKING:
    from dynctl.cli.up import UpOptions


def up_by_ssh(path: Path, sets: list[str], options: UpOptions) -> int:
    """Starts every node's part; the exit code is that of the start with `-d`, else of the whole run."""
    text = read_text(path)
    topology = load_text(text, path, sets)
    _refuse(topology, path, options)
    secret = _secret(topology)
    ways = routes(topology, own_addresses())
    ssh = _find_ssh() if any(way.destination for way in ways.values()) else ""
    head = topology.frontend_node or next(iter(ways))
    view = View(list(ways), head, json=options.json, verbose=options.verbose, no_color=options.no_color)

    def question(node: str) -> Check:
        return Check(
            node=node,
            text=text,
            source=str(path),
            base=str(path.absolute().parent),
            cwd=os.getcwd(),
            sets=tuple(sets),
            secret=secret,
            verify=options.verify,
            preflight=options.preflight,
            requests=options.verbose,
        )

    def reached(way: Route, inbox: Inbox) -> Channel:
        if way.destination is None:
            argv = [*self_command(), NODE_COMMAND]
        else:
            argv = ssh_argv(ssh, way.destination, remote_command(code.own_command(), options.ssh_dynctl))
        env = {name: value for name, value in os.environ.items() if name != SECRET_VARIABLE}
        return Channel(way.node, argv, inbox, env)

    fleet = Fleet(topology.name, ways, head, view, reached)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # under nohup it stays ignored
            signal.signal(number, lambda number, _frame: fleet.signalled(number))
    view.say(f"asking {', '.join(map(str, ways.values()))}")
    with view:
        failure, open_ends = _run(fleet, question, detach=options.detach)
    if failure:
        failure.why = (*failure.why, *open_ends)
        raise failure
    if open_ends:
        raise RuntimeFailure(
            f"not every part of `{topology.name}` is known to have ended",
            why=open_ends,
            fix=f"`dynctl down {topology.name}` on each of them",
        )
    if fleet.signals and not fleet.left:
        return 128 + fleet.signals[0]
    if fleet.left and (status := view.picture):
        for line in farewell(topology.name, status, head, ways[head].destination):
            print(line, file=sys.stderr)  # noqa: T201
    return 0


def _run(fleet: Fleet, question: Callable[[str], Check], *, detach: bool) -> tuple[DynctlError | None, tuple[str, ...]]:
    """The run from the first question to its end: what it failed of, and what is to be said of nodes left open."""
    try:
        fleet.call(code.here())
        fleet.check(question)
        fleet.start()
        fleet.watch(detach=detach)
    except Cut:
        return None, fleet.end()
    except DynctlError as error:
        open_ends = fleet.end()
        # meanwhile the node at fault may have told more than the one that fell over it
        return fleet.outcome() or error, open_ends
    if detach and not fleet.signals:
        fleet.leave()
        return None, ()
    return None, fleet.end()


def _refuse(topology: Topology, path: Path, options: UpOptions) -> None:
    if options.node:
        raise UsageError(
            f"--ssh starts every node, --node {options.node} only one", fix="leave one of the two options out"
        )
    if options.sample:
        raise UsageError("--ssh can't send the sample request of --sample", fix="leave --sample out")
    if len(topology.nodes) < 2:
        raise UsageError(
            "--ssh is for files with several `nodes`",
            where=str(path),
            why=f"this one has {'one' if topology.nodes else 'none'}",
            fix="`dynctl up` on the machine itself, without --ssh",
        )
    for name, node in topology.nodes.items():
        if node.ssh and node.ssh.startswith("-"):
            raise UsageError(f"{node.ssh} is no ssh destination", where=topology.where("nodes", name, "ssh"))


def _secret(topology: Topology) -> str | None:
    """What is handed to nodes that have no `secret_file`; None where it is not here either, so that they must."""
    if topology.secret_file and not Path(topology.secret_file).exists():
        return None
    return load_secret(topology)


def _find_ssh() -> str:
    found = shutil.which("ssh")
    if found is None:
        raise HostError("there is no ssh client here", where="PATH", fix="install OpenSSH's (openssh-client)")
    return found
