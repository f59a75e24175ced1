"""Operations on several nodes: whoever is asked hands them to the frontend's node, which hands out the steps."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from dynctl.errors import DynctlError, RuntimeFailure, TransportError
from dynctl.nodes.failed import Failed
from dynctl.nodes.messages import Errand, ErrandDone, HeadWord
from dynctl.plan.values import Plan
from dynctl.runtime.messages import Drain, OnNodes, Restart, Undrain


class Links(Protocol):
    """The links to the other nodes."""

    async def ask_errand(self, node: str, errand: Errand) -> ErrandDone:
        """What came of it; TransportError when the node is lost."""


class Others(Protocol):
    """The other nodes of the run."""

    head: bool

    @property
    def exchange(self) -> Links:
        """The links to them."""

    def word(self) -> HeadWord | None:
        """What the frontend's node says; None on that node itself, and while it is away."""


class Errands:
    """`others`: None for a run of one node, where everything is done here."""

    def __init__(self, plan: Plan, others: Others | None) -> None:
        self._plan, self._others = plan, others
        self._head_node = plan.process("frontend").node

    @property
    def here(self) -> bool:
        """Whether this node carries operations out."""
        return self._others is None or self._others.head

    def is_here(self, process: str) -> bool:
        """Whether that process runs on this node."""
        return not self._plan.nodes or self._plan.process(process).node == self._plan.node

    async def hand_over(self, asked: OnNodes) -> str:
        """Has the frontend's node carry it out; what it says. DynctlError."""
        return await self._ask(self._head_node, to_errand(asked))

    async def step(self, asked: OnNodes, process: str) -> str:
        """Has the process's node do one step. DynctlError."""
        node = self._plan.process(process).node
        errand = to_errand(asked)
        return await self._ask(
            node, Errand(number=0, does=errand.does, processes=(process,), drain_s=errand.drain_s, step=True)
        )

    def under_way(self, process: str) -> int | None:
        """Requests in a worker of this node that is being drained; None while the frontend's node has not said."""
        word = self._others.word() if self._others else None
        return word.busy.get(process) if word else None

    async def _ask(self, node: str, errand: Errand) -> str:
        assert self._others  # noqa: S101 - without other nodes everything is here
        try:
            done = await self._others.exchange.ask_errand(node, errand)
        except TransportError as error:
            raise RuntimeFailure(
                f"node {node} can't be asked to {errand.does}: {error.cause}",
                where=f"node {node}",
                fix="`dynctl status` shows which nodes are here; what was begun there may go on",
            ) from error
        if done.failed:
            raise done.failed.error()
        return done.said


async def as_done(work: Awaitable[str]) -> ErrandDone:
    """What came of it, ready for the wire."""
    try:
        return ErrandDone(number=0, said=await work)
    except DynctlError as error:
        return ErrandDone(number=0, failed=Failed.of(error))


def to_errand(asked: OnNodes) -> Errand:
    """The operation as nodes tell it each other."""
    match asked:
        case Restart():
            return Errand(number=0, does="restart", processes=asked.processes, drain_s=asked.drain_s)
        case Drain():
            return Errand(number=0, does="drain", processes=(asked.process,), drain_s=asked.drain_s)
        case Undrain():
            return Errand(number=0, does="undrain", processes=(asked.process,))


def to_operation(errand: Errand) -> OnNodes:
    """The operation that another node asks for."""
    match errand.does:
        case "restart":
            return Restart(processes=errand.processes, drain_s=errand.drain_s)
        case "drain":
            return Drain(process=errand.processes[0], drain_s=errand.drain_s)
        case "undrain":
            return Undrain(process=errand.processes[0])
