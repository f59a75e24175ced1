"""`dynctl _node`: a node's side of `up --ssh`. Started by ssh, or by the starter for its own host."""

from __future__ import annotations

import contextlib
from pathlib import Path, PurePosixPath

from dynctl.cli import up
from dynctl.cli.down import down
from dynctl.errors import DynctlError, RunStateError, UsageError
from dynctl.nodes.failed import Failed
from dynctl.preflight.secret import load_secret
from dynctl.preflight.this_node import find_node
from dynctl.runtime.messages import Gone
from dynctl.ssh import code
from dynctl.ssh.part import LOST_GRACE_S, Part, Starter, StarterLost
from dynctl.ssh.words import Check, Checked, Clear, Go
from dynctl.topology.load import Bases, expand_user, parse
from dynctl.topology.schema import Topology


def node() -> int:
    """Speaks with the starter until this node's part has ended, or is left alone; the exit code."""
    starter = Starter()
    try:
        starter.say(code.here())
        question = starter.want()
        if isinstance(question, Clear):
            return _clear(starter, question.name)
        if not isinstance(question, Check):
            return 2
        return _serve(starter, question)
    except DynctlError as error:
        with contextlib.suppress(StarterLost):
            starter.say(Failed.of(error))
            starter.say(Gone())  # nothing was started
        return error.exit_code
    except StarterLost:
        return 1  # nothing was started


def _serve(starter: Starter, question: Check) -> int:
    starter.busy = True
    topology = own_topology(question)
    options = up.UpOptions(verify=question.verify, preflight=question.preflight, verbose=question.requests)
    name = find_node(topology, question.node)
    secret = own_secret(topology, question.secret)
    preflight = up.check(topology, options, name)
    starter.busy = False
    starter.say(Checked())
    if not isinstance(starter.want(), Go):
        return 2
    plan, connection = up.begin(topology, options, name, secret, preflight)
    return Part(plan.name, connection, starter).run()


def _clear(starter: Starter, name: str) -> int:
    """Ends this node's part of a run whose starter was lost, if it has not ended by itself."""
    with contextlib.suppress(RunStateError):
        down(name, timeout_s=LOST_GRACE_S, kill=False)
    starter.say(Gone())
    return 0


def own_topology(question: Check) -> Topology:
    """The topology as it reads where it was written; `~` is this node's user's.

    Snapshots are for plans from elsewhere: here every node looks at its own hardware.
    """
    bases = Bases(PurePosixPath(question.base), PurePosixPath(question.cwd), expand_user)
    topology = parse(question.text, source=question.source, overrides=question.sets, bases=bases)
    nodes = {name: spec.model_copy(update={"hardware": None}) for name, spec in topology.nodes.items()}
    return topology.model_copy(update={"nodes": nodes})


def own_secret(topology: Topology, handed: str | None) -> str | None:
    """From this node's own `secret_file` where it has one, else what the starter handed over."""
    if topology.secret_file and Path(topology.secret_file).exists():
        return load_secret(topology)
    if handed is None:
        raise UsageError(
            f"{topology.secret_file} is not on this node, and the starter has none",
            where=topology.where("secret_file"),
            fix="put it there, or on the host where `up --ssh` is typed",
        )
    return handed
