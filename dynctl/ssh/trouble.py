"""Why a node can't be used, from what ssh and the far side said: cause, why and fix. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from dynctl.errors import DynctlError, HostError, UsageError
from dynctl.nodes.failed import Failed
from dynctl.ssh.route import CONNECT_S, NOT_FOUND, Route
from dynctl.ssh.words import Here

SSH_FAILED = 255
MOST_LINES = 6
WIDEST = 300
INSTALL = "install the same dynctl there, or say where it is: `--ssh-dynctl PATH`"


class Kind(NamedTuple):
    """One way in which ssh fails. `told`: found in its stderr. `{host}` in the fix is the destination, quoted."""

    told: str
    cause: str
    fix: str


KINDS = (
    Kind(
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "has another host key than the one that is known",
        "if the machine was really set up anew: `ssh-keygen -R` with its name, then `ssh {host}` once by hand",
    ),
    Kind(
        "Host key verification failed",
        "has a host key that is not known here",
        "`ssh {host}` once by hand, and accept it",
    ),
    Kind("host key is known for", "has a host key that is not known here", "`ssh {host}` once by hand, and accept it"),
    Kind(
        "Too many authentication failures",
        "refuses the login after too many keys",
        "name the key in ~/.ssh/config (`IdentityFile`, `IdentitiesOnly yes`)",
    ),
    Kind(
        "Permission denied",
        "asks for a password, a passphrase or a key that is not there",
        "`ssh-copy-id {host}`, or `ssh-add` the key; `ssh -o BatchMode=yes {host} true` must work",
    ),
    Kind(
        "Connection refused",
        "refuses the connection: no ssh server listens there",
        "start sshd there, or correct the port",
    ),
    Kind(
        "timed out",
        f"does not answer ssh within {CONNECT_S} s",
        "is it up, and does a firewall drop the port? `ssh -v {host}` shows how far it gets",
    ),
    Kind("Could not resolve", "has a name that can't be resolved", "correct `nodes.{node}.ssh`, or ~/.ssh/config"),
    Kind("No route to host", "can't be reached", "is it up, and the address right?"),
    Kind("Network is unreachable", "can't be reached", "is this host on the network?"),
    Kind(
        "kex_exchange_identification",
        "hung up before it said who it is",
        "is what listens there an ssh server? see its log",
    ),
    Kind("onfiguration option", "can't be asked: ssh does not take its configuration", "correct ~/.ssh/config"),
)


def unreached(route: Route, code: int, said: Sequence[str]) -> DynctlError:
    """The error for a node whose dynctl never spoke. `said`: stderr, and what came on stdout in its place."""
    lines = _shown(said)
    text = "\n".join(said)
    host = shlex.quote(route.destination or route.node)
    if code == SSH_FAILED:
        for kind in KINDS:
            if kind.told in text:
                fix = kind.fix.format(host=host, node=route.node)
                return HostError(f"{route} {kind.cause}", where=_where(route), why=lines, fix=fix)
        return HostError(
            f"{route} can't be reached by ssh", where=_where(route), why=lines, fix=f"`ssh -v {host}` shows why"
        )
    if NOT_FOUND in text or code in (126, 127):
        return HostError(f"there is no dynctl on {route}", where=_where(route), why=lines, fix=INSTALL)
    if "_node" in text and "No such command" in text:
        return UsageError(f"{route} has another dynctl, one that knows no --ssh", where=_where(route), fix=INSTALL)
    return HostError(
        f"what answers on {route} is no dynctl",
        where=_where(route),
        why=lines or (f"it ended with exit code {code}, and said nothing",),
        fix=f"`ssh {host} dynctl --version` must print a version and nothing else",
    )


def silent(route: Route, waited_s: float, said: Sequence[str]) -> DynctlError:
    """The error for a node that was reached, perhaps, and did not speak in time."""
    host = shlex.quote(route.destination or route.node)
    return HostError(
        f"{route} says nothing within {waited_s:g} s",
        where=_where(route),
        why=_shown(said),
        fix=f"`ssh {host} dynctl --version` shows what takes so long",
    )


def other_dynctl(route: Route, here: Here, own: Here) -> DynctlError | None:
    """The error for a node with another dynctl than this one."""
    if (here.version, here.code) == (own.version, own.code):
        return None
    if here.version != own.version:
        cause = f"{route} has dynctl {here.version[:40]}, this host {own.version}"
        why = f"{here.command[:WIDEST]} on {here.host[:80]}"
    else:
        cause = f"{route} has dynctl {here.version[:40]} too, but with other code"
        why = f"{here.command[:WIDEST]} on {here.host[:80]} is {here.code[:12]}, {own.command} here is {own.code[:12]}"
    return UsageError(cause, where=_where(route), why=why, fix=INSTALL)


def refused(node: str, failed: Failed) -> DynctlError:
    """What a node says against a start, or why its part failed, with the node named."""
    named = re.search(rf"\bnode {re.escape(node)}\b", failed.cause)
    cause = failed.cause if named else f"node {node}: {failed.cause}"
    # what is wrong with the file is mended here, everything else there
    fix = f"on node {node}: {failed.fix}" if failed.fix and failed.exit_code != UsageError.exit_code else failed.fix
    return msgspec.structs.replace(failed, cause=cause, fix=fix).error()


def culprit(failures: dict[str, Failed]) -> tuple[str, Failed]:
    """The failure that made the others: nodes that end because of another say so, and which one that is."""
    for node, failed in failures.items():
        if not any(failed.cause.startswith(f"node {other} ") for other in failures if other != node):
            return node, failed
    return next(iter(failures.items()))


def first_of(errors: Sequence[DynctlError]) -> DynctlError:
    """The first, with a line for each of the others."""
    first, *others = errors
    more = [f"and {error.cause}" for error in others[:MOST_LINES]]
    if len(others) > MOST_LINES:
        more.append(f"and {len(others) - MOST_LINES} more nodes")
    first.why = (*first.why, *more)
    return first


def _where(route: Route) -> str:
    return f"nodes.{route.node}"


def _shown(said: Sequence[str]) -> tuple[str, ...]:
    lines = [line.strip()[:WIDEST] for line in said if line.strip(" @\r\n")]
    return tuple(lines[-MOST_LINES:])
