"""The other nodes of this node's run: what they are told, and what follows from what they say."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from typing import Protocol

import httpx

from dynctl.errors import DynctlError, ReadyTimeout, UsageError
from dynctl.fabric.peer.link import SILENCE_S
from dynctl.nodes.exchange import Exchange
from dynctl.nodes.failed import Failed
from dynctl.nodes.messages import AskEnd, HeadWord, Report, Unproven
from dynctl.nodes.peer import Peer
from dynctl.nodes.seen import LogSeen
from dynctl.nodes.words import OneSided, failed_there, gone_early, left_early
from dynctl.plan.values import Plan
from dynctl.runtime.bringup import BringUp
from dynctl.runtime.elsewhere import Elsewhere, explained, unreached
from dynctl.runtime.gates import POLL_S
from dynctl.runtime.managed import Managed
from dynctl.runtime.parting import Parting
from dynctl.runtime.picture import Picture
from dynctl.runtime.proving import PROVING
from dynctl.runtime.rejoining import listen_again, note_proven, proven_before
from dynctl.runtime.serving import Serving
from dynctl.runtime.spans import Spans
from dynctl.store.event import Event
from dynctl.store.log import EventLog
from dynctl.store.run import RunRecord
from dynctl.telemetry.status import NodeStatus, RunState

UNREACHED_S = 5.0
"""After so long it is worth saying that a worker can't be reached from here."""
MOST_WARNED = 10
"""So many different faults of others are told."""


class Run(Protocol):
    """What is needed of the supervisor."""

    plan: Plan
    record: RunRecord
    processes: dict[str, Managed]
    serving: Serving
    spans: Spans
    events: EventLog
    http: httpx.AsyncClient
    bringup: BringUp

    @property
    def picture(self) -> Picture:
        """The run as others see it."""

    @property
    def run_state(self) -> RunState:
        """The run's state as last computed."""

    @property
    def stopping(self) -> bool:
        """Whether this node's part ends."""

    def refresh_state(self) -> None:
        """Recompute the run's state and tell the frontend."""

    def ask_down(self, grace_s: float, *, now: bool) -> None:
        """End this node's part."""


class Neighbours:
    """`head`: the frontend runs on this node, which therefore proves the pairs and says when all is ready."""

    def __init__(self, run: Run, secret: str) -> None:
        self._run, self._plan = run, run.plan
        self.exchange = Exchange(run.plan, run.record.run_id, secret, self)
        self.peers = self.exchange.peers
        self._head_node = run.plan.process("frontend").node
        self.head = self._head_node == run.plan.node
        self.elsewhere: dict[str, Elsewhere] = {
            spec.id: Elsewhere(spec, self.peers[spec.node], self.exchange.ask_seen, judged=self.head)
            for spec in run.plan.elsewhere()
        }
        self._trouble: asyncio.Queue[DynctlError] = asyncio.Queue()
        self._pulse = asyncio.Event()
        self._said: dict[str, str | None] = dict.fromkeys(self.peers, "")
        self._warned: set[str] = set()
        self._origin: str | None = None
        self._recalled: dict[str, str] = {}
        self._joining: asyncio.Task[None] | None = None
        self.parting = Parting(self.exchange, self._head_node, self.until, run.events)

    async def trouble(self) -> None:
        """Never returns; raises what another node makes this one end for before it was ready."""
        raise await self._trouble.get()

    async def rejoin(self, past: Iterable[Event]) -> None:
        """Meets the others again, after this node was adopted; returns once all were heard, at last after `SILENCE_S`.

        What `past`, the events of an earlier supervisor, tells to be proven there and still runs needs no new proof.
        """
        self._recalled = proven_before(past, self._plan)
        self._joining = asyncio.create_task(listen_again(self.exchange, self._run.events))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SILENCE_S):
                await self.until(lambda: all(peer.report for peer in self.peers.values()))
        self._recalled = {}

    async def until(self, reached: Callable[[], bool]) -> None:
        """Returns once that is so; looked at whenever a node has news, and a few times a second."""
        while not reached():
            await self._pulse.wait()

    def word(self) -> HeadWord | None:
        """What the frontend's node says of the whole; None when it takes no part, or is this one."""
        said = self._head_report()
        return said.head if said else None

    def away(self) -> list[str]:
        """Why nodes take no part, one line each."""
        return [why for peer in self.peers.values() if (why := peer.why_not())]

    def rows(self) -> dict[str, NodeStatus]:
        """Each of them as seen from here."""
        return {name: peer.status() for name, peer in self.peers.items()}

    def head_state(self) -> RunState | None:
        """The deployment's state as the frontend's node sees it; None where that is this one or it is away."""
        said = self._head_report()
        return said.state if said else None

    def head_reason(self) -> str | None:
        """Its reason for that."""
        said = self._head_report()
        return said.reason if said else None

    def incarnation(self, process: str) -> str | None:
        """Which start of a process of this node serves now."""
        managed = self._run.processes.get(process)
        pid = managed.pid if managed else None
        return f"{self._run.record.run_id}:{pid}" if pid and process in self._run.serving else None

    def explain(self, error: ReadyTimeout) -> ReadyTimeout:
        """The timeout, with what is missing of the other nodes."""
        serves = all(process in self._run.serving for process in self._run.processes)
        return explained(error, self.peers.values(), self.elsewhere.values(), serves=serves)

    # what the links ask

    def report(self) -> Report:
        """What this node says of itself now."""
        run, failure = self._run, self._run.picture.failure
        serving = {process: mark for process in run.processes if (mark := self.incarnation(process))}
        return Report(
            now=time.time(),
            state=run.run_state,
            reason=", ".join(filter(None, (run.picture.own_reason(run.run_state), *unreached(self.elsewhere.values()))))
            or None,
            processes=tuple(process.status() for process in run.processes.values()),
            serving=serving,
            epochs=run.spans.epochs(),
            parts=run.spans.parts(),
            leaving=run.stopping,
            failed=Failed.of(failure) if failure else None,
            origin=self._origin,
            ended=self.parting.ended is not None,
            survivors=self.parting.ended or (),
            head=self._own_word() if self.head else None,
        )

    def news(self, peer: Peer | None) -> None:
        """Takes in what another node said, or that time has passed."""
        if not self._run.stopping:
            self._tell_changes()
            if not self._run.picture.was_ready:
                self._end_early()
            for process in self.elsewhere.values():
                self._follow(process)
            self._run.spans.judge()
            self._show_proving()
            if peer:
                self._run.refresh_state()
        self._pulse.set()
        self._pulse.clear()

    def refused(self, error: DynctlError, peer: Peer | None) -> None:
        """Ends this node if it is not ready yet and the fault may be its own; else it is said, once."""
        if isinstance(error, (UsageError, OneSided)) and not self._run.picture.was_ready:
            self._trouble.put_nowait(error)
        elif error.cause not in self._warned and len(self._warned) < MOST_WARNED:
            self._warned.add(error.cause)
            why = ", ".join([*([error.where] if error.where else []), *error.why])
            self._run.events.add("warning", error.cause, why=why or None)

    async def seen(self, process: str) -> LogSeen:
        """What the log of a process of this node told."""
        managed = self._run.processes.get(process)
        return await managed.seen() if managed else LogSeen()

    def asked_to_end(self, peer: Peer, message: AskEnd) -> None:
        """`down --all` on another node."""
        self.parting.asked_by(peer)
        self._run.ask_down(message.grace_s, now=message.now)

    def unproven(self, peer: Peer, message: Unproven) -> None:
        """The frontend's node could not prove a process of this one: that start of it has failed."""
        process, error = message.process, message.failed.error()
        if peer.name != self._head_node or self.incarnation(process) != message.incarnation:
            return  # it is another one by now
        if self._run.picture.was_ready:
            self._run.bringup.keepers[process].feed("broken", f"node {peer.name}: {error.cause}", why=error.cause)
        else:
            self._trouble.put_nowait(error)

    # what follows

    def _head_report(self) -> Report | None:
        """What the frontend's node said last; None while it takes no part, or where it is this one."""
        peer = self.peers.get(self._head_node)
        return peer.report if peer and peer.alive() else None

    def _own_word(self) -> HeadWord:
        picture = self._run.picture
        return picture.word(
            ready=picture.was_ready and not self._run.stopping,
            proven={process.id: process.proven for process in self.elsewhere.values() if process.proven},
            proving=tuple(process.id for process in self.elsewhere.values() if process.proving),
        )

    def _tell_changes(self) -> None:
        """An event for each node that is met, can't be met for another reason than before, or is lost."""
        for peer in self.peers.values():
            why = peer.why_not()
            gist = None if why is None else "lost" if peer.met and not (peer.report and peer.report.leaving) else why
            if gist != self._said[peer.name]:
                self._said[peer.name] = gist
                state = peer.status().state
                self._run.events.add("node", why or f"node {peer.name} is here", state=state, data={"node": peer.name})

    def _end_early(self) -> None:
        for peer in self.peers.values():
            report, age_s = peer.report, peer.age_s()
            if report and report.leaving and peer.met:
                if report.failed:
                    self._origin = report.origin or peer.name
                    self._trouble.put_nowait(failed_there(self._origin, report.failed))
                else:
                    self._origin = peer.name
                    self._trouble.put_nowait(left_early(peer.name))
            elif age_s is not None and age_s > SILENCE_S:
                self._trouble.put_nowait(gone_early(peer.node, age_s))

    def _follow(self, process: Elsewhere) -> None:
        """A process that began or ceased to serve there: what was proven of it before does not count any longer."""
        now = process.incarnation
        if not self.head or now == process.known:
            return
        process.known, process.proven, process.proving, process.unreached = now, None, False, None
        self._run.serving.discard(process.id)
        if process.reaching:
            process.reaching.cancel()
        if now and self._recalled.pop(process.id, None) == now:
            process.proven, process.reaching = now, None
            self._run.serving.add(process.id)
            note_proven(self._run.events, process)
        else:
            process.reaching = asyncio.create_task(self._reach(process)) if now else None

    async def _reach(self, process: Elsewhere) -> None:
        """It serves, once it can be reached from the frontend's node, too."""
        probes, begin = process.spec.probes, time.monotonic()
        while probes.url and probes.health:
            try:
                if (await self._run.http.get(probes.url + probes.health)).status_code == 200:
                    break
                why = "does not answer 200"
            except httpx.HTTPError as error:
                why = type(error).__name__
            if not process.unreached and time.monotonic() - begin >= UNREACHED_S:
                process.unreached = f"not reached from {self._plan.node} ({why})"
                node = process.peer.name
                self._run.events.add(
                    "warning",
                    f"{process.id} serves on node {node}, but {process.unreached}",
                    process=process.id,
                    why=f"{probes.url}: is the port open in the firewall of node {node}?",
                )
            await asyncio.sleep(POLL_S)
        process.unreached = None
        self._run.serving.add(process.id)
        self._run.refresh_state()

    def _show_proving(self) -> None:
        word = self.word()
        for name in word.proving if word else ():
            if name in self._run.processes:
                self._run.processes[name].enter(PROVING)
