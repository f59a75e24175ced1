"""What goes wrong between nodes, in words that name the node. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from dynctl.errors import DynctlError, ReadyTimeout, RuntimeFailure, TransportError, UsageError
from dynctl.fabric.peer.address import format_address
from dynctl.fabric.peer.handshake import Hello, Purpose, Side, it_said
from dynctl.nodes.failed import Failed
from dynctl.nodes.messages import Meet
from dynctl.plan.transport import between
from dynctl.plan.values import Plan, PlannedNode

SHOWN = 60


class OneSided(TransportError):
    """Only one of two nodes has RDMA: their run can't be what `require` asks for."""


class NodePurpose(Purpose):
    """A link between two supervisors of one run. `node`: whom this end expects; None at the one that listens."""

    magic = "dynctl node"

    def __init__(self, node: PlannedNode | None) -> None:
        self._node = node
        self._named = f"node {node.name}" if node else "the peer"
        self._where = format_address(node.address, node.control_port) if node else None

    def wrong_token(self, side: Side) -> DynctlError:
        """The secrets differ; the end that connects is told so."""
        if side == "connect":
            return UsageError(
                f"{self._named} has another secret",
                where=self._where,
                why="it refuses what this node proves with its own (`secret_file`, or DYNCTL_SECRET)",
                fix="give every node the same secret",
            )
        return UsageError(f"{self._named} has another secret", fix="give every node the same secret")

    def not_dynctl(self, data: bytes = b"") -> DynctlError:
        """Something else holds the port, or came to it."""
        return TransportError(
            f"what answers for {self._named} is no supervisor of dynctl" if self._node else "a stranger called",
            where=self._where,
            why=it_said(data),
            fix="see what holds the port there; `nodes` gives each node its range of `ports`",
        )

    def other_version(self, hello: Hello, own: str) -> DynctlError:
        """Two dynctl that may not understand each other."""
        return UsageError(
            f"{self._named} runs dynctl {hello.version[:40]}, this node {own}",
            where=self._where,
            fix="install the same version on every node",
        )


def disagreement(plan: Plan, meet: Meet) -> DynctlError | None:
    """Why these two nodes can't be of one run; None where they agree."""
    names = {node.name for node in plan.nodes}
    who = meet.node[:SHOWN]
    if meet.run != plan.name:
        return UsageError(
            f"node {who} belongs to another run, `{meet.run[:SHOWN]}`",
            fix="give every node the same file; runs that share nodes need other `ports`",
        )
    if meet.node not in names or meet.node == plan.node:
        why = "it is this node itself" if meet.node == plan.node else f"there are: {', '.join(sorted(names))}"
        return UsageError(f"a node calls itself `{who}`", why=why, fix="start each node with its own `--node`")
    if meet.digest == plan.digest:
        return _one_sided_rdma(plan, meet)
    return UsageError(
        f"node {who} has another plan than this node, {plan.node}",
        why=differences(plan.agreed, meet.agreed, who) or "their digests differ",
        fix="give every node the same file, dynctl, engine and NIXL; then start them again",
    )


def _one_sided_rdma(plan: Plan, meet: Meet) -> DynctlError | None:
    """What was assumed of the other node's fabric, judged now that it is known."""
    own, theirs = plan.node, meet.node
    ends = [(plan.places(pair.from_), plan.places(pair.to)) for pair in plan.transport.pairs if pair.across]
    if not any((own in a and theirs in b) or (own in b and theirs in a) for a, b in ends):
        return None
    try:
        between(plan.transport.required, (plan.node, plan.rdma), (meet.node, meet.rdma))
    except TransportError as error:
        return OneSided(error.cause, where=error.where, why=error.why, fix=error.fix)
    return None


def not_ready(
    error: ReadyTimeout,
    away: Sequence[str],
    unreached: Sequence[str],
    busy: Mapping[str, str | None],
    *,
    serves: bool,
) -> ReadyTimeout:
    """A node's timeout, told by what the others lack. `away`: why a node takes no part, `busy`: what it still does.

    `unreached`: why a process that serves there does not serve here. `serves`: this node's own part does, so that
    neither its phases nor its logs tell anything.
    """
    lacks = [*away, *unreached]
    doing = [f"node {node}: {reason}" for node, reason in busy.items() if reason]
    if not lacks:
        return ReadyTimeout(
            error.cause, where=error.where, why=[*error.why, *doing], fix=error.fix, tail=() if doing else error.tail
        )
    fix = "let the nodes reach each other on the ports that `dynctl plan` names (firewall)"
    if away:
        fix = f"`dynctl up FILE --node NAME` on each node within ready.timeout; {fix}"
    return ReadyTimeout(
        f"{error.cause}: {'; '.join(lacks)}",
        where=error.where,
        why=doing if serves else [*error.why, *doing],
        fix=fix,
        tail=() if serves else error.tail,
    )


def differences(own: Mapping[str, str], theirs: Mapping[str, str], who: str) -> tuple[str, ...]:
    """A line for each part that differs."""
    parts = [part for part in {**own, **theirs} if own.get(part) != theirs.get(part)]
    return tuple(
        f"{part[:SHOWN]}: {theirs.get(part, 'none')[:SHOWN]} on {who}, {own.get(part, 'none')[:SHOWN]} here"
        for part in parts[:8]
    )


def failed_there(node: str, failed: Failed) -> DynctlError:
    """The error with which another node ends the run, as this node's own."""
    return msgspec.structs.replace(failed, cause=f"node {node} failed: {failed.cause}").error()


def left_early(node: str) -> DynctlError:
    """Another node was asked to end before the deployment was ready."""
    return RuntimeFailure(
        f"node {node} was ended before the deployment was ready",
        why="somebody asked for its end there (`dynctl down`, Ctrl-C, or its `up` was closed)",
        fix="start it on every node again",
    )


def gone_early(node: PlannedNode, age_s: float) -> DynctlError:
    """Another node fell silent before the deployment was ready."""
    return RuntimeFailure(
        f"node {node.name} is gone: not heard for {age_s:.0f} s",
        where=format_address(node.address, node.control_port),
        why="its supervisor was met, and ended without a word, or the network between the nodes is cut",
        fix="see `dynctl status` there; start it on every node again",
    )
