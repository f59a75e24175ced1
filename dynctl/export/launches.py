"""The processes of a plan as something without a supervisor starts them: what all scripts and units are made from."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from dynctl.engines.spec import EPOCH, ProcessSpec, Restart
from dynctl.engines.vllm import GUARD, INSIDE
from dynctl.environ import engine_environment
from dynctl.plan.redact import HIDDEN
from dynctl.plan.values import Plan

KEY_FILE = "DYNCTL_ENGINE_KEY_FILE"
"""Names a file with the key that engines on several nodes ask for; the frontend reads the file itself."""
KEY = "VLLM_API_KEY"
EPOCH_VARIABLE = "EPOCH"
_SUPERVISED = {"--control": 1, "--drain-timeout": 1}
"""Flags of the frontend that a supervisor goes with, and how many values they have."""


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """One process.

    `secrets`: variables that it needs and that are written nowhere. `ready`: URL that answers 200 once it serves, None
    where it can't be asked. `guarded`: needs KEY from the file that KEY_FILE names. `sockets`: a variable that should
    name a directory of its own. `after`: what must be ready before it starts.
    """

    id: str
    role: str
    node: str
    argv: tuple[str, ...]
    env: dict[str, str]
    secrets: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()
    cpus: str | None = None
    memory_nodes: tuple[int, ...] = ()
    ready: str | None = None
    after: tuple[str, ...] = ()
    guarded: bool = False
    sockets: str | None = None
    restart: Restart = Restart()
    grace_s: float = 20.0

    @property
    def epoch(self) -> bool:
        """Whether its command line holds EPOCH, which all parts of a worker on several nodes must be given alike."""
        return any(EPOCH in word for word in self.argv)


def launches(plan: Plan, node: str | None = None) -> tuple[Launch, ...]:
    """Those of one node (by default the plan's own), in the order of their start: workers, then the frontend.

    The plan's secrets are hidden (plan.redact).
    """
    here = node or plan.node
    own = [process for process in plan.processes if not plan.nodes or process.node == here]
    return tuple(_launch(plan, process) for process in sorted(own, key=lambda process: process.role == "frontend"))


def others_ready(plan: Plan, node: str | None = None) -> tuple[str, ...]:
    """URLs of the workers on other nodes, which the frontend waits for."""
    here = node or plan.node
    return tuple(url for worker in plan.workers() if plan.nodes and worker.node != here if (url := _ready(worker)))


def _launch(plan: Plan, process: ProcessSpec) -> Launch:
    front = process.role == "frontend"
    builtin = front and "--control" in process.argv
    env = {} if builtin else engine_environment(process.env, {})
    workers = tuple(worker.id for worker in plan.workers() if worker.node == process.node or not plan.nodes)
    return Launch(
        id=process.id,
        role=process.role,
        node=process.node,
        argv=tuple(_alone(plan, process)) if builtin else process.argv,
        env={name: value for name, value in env.items() if value != HIDDEN},
        secrets=tuple(name for name, value in env.items() if value == HIDDEN),
        gpus=process.gpus,
        cpus=process.cpus,
        memory_nodes=process.memory_nodes,
        ready=f"{plan.frontend_url}/health" if builtin else _ready(process),
        after=workers if front else process.after,
        guarded=GUARD in process.argv,
        sockets=process.sockets_variable if process.sockets_variable not in process.env else None,
        restart=process.restart,
        grace_s=process.stop_grace_s,
    )


def _ready(process: ProcessSpec) -> str | None:
    probes = process.probes
    return f"{probes.url}{probes.health}" if probes.url and probes.health else None


def _alone(plan: Plan, process: ProcessSpec) -> Iterator[str]:
    """The built-in frontend's command line with its workers named, in place of the supervisor's socket."""
    words = iter(process.argv)
    for word in words:
        if word in _SUPERVISED:
            for _ in range(_SUPERVISED[word]):
                next(words)
        else:
            yield word
    for worker in plan.workers():
        yield from (f"--{worker.role}", worker.probes.url or "")


def key_environment(launch: Launch) -> dict[str, str]:
    """What guards an engine's HTTP between nodes, besides the key: where the engine finds the guard."""
    return {"PYTHONPATH": INSIDE} if launch.guarded else {}
