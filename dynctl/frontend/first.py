"""The first of a frontend's processes: starts the others, starts them again, and speaks for all."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable

import msgspec

from dynctl.frontend import merge
from dynctl.frontend.alone import Way
from dynctl.frontend.board import Board
from dynctl.frontend.link import (
    Columns,
    Doubted,
    Freed,
    Link,
    Message,
    News,
    Renew,
    Seen,
    Serving,
    Stop,
    Took,
    Want,
    What,
)
from dynctl.frontend.merge import Part
from dynctl.frontend.messages import Report, RequestRecord, WorkerTable
from dynctl.frontend.seat import seat_variable
from dynctl.frontend.together import PART, RECORDS, Own, hear

_MAX_RECENT = 500
_ANSWER_S = 2.0
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 5.0
_LOOK_S = 5.0
_SILENT_LOOKS = 6
"""Looks at a process without a word from it until it is taken for hung; it says something each second."""
_HURRY_S = 2.0
_LATE_S = 5.0
"""How much longer than this one's own drain that of the others may take."""


class Sibling:
    """A further process of the frontend, and what it has said."""

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.sock = sock
        self.process: subprocess.Popen[bytes] | None = None
        self.link: Link | None = None
        self.serving = False
        self.report = Report()
        self.part: Part = []
        self.silent = 0
        self.stand_in: asyncio.Server | None = None


class First:
    """`socks`: one listening socket for each further process. They stay open here, so that connections wait for a
    process that is started again; this one takes them meanwhile. `relays`: tables are this one's to pass on."""

    leads = True

    def __init__(
        self, board: Board, socks: Iterable[socket.socket], *, relays: bool, log: Callable[[str], None]
    ) -> None:
        self.board = board
        self._siblings = [Sibling(number, sock) for number, sock in enumerate(socks, 1)]
        self._relays = relays
        self._log = log
        self._table: WorkerTable | None = None
        self._gone: Part = []
        self._gone_total = Report()
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._errands: set[asyncio.Task[None]] = set()

    async def start(self, own: Own) -> None:
        """Start the others; they come when they come."""
        self._own = own
        own.outbox.others = self._totals
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._keep(sibling)) for sibling in self._siblings]
        self._watch = loop.create_task(self._look())

    async def known(self) -> None:
        """It takes connections at once."""

    def serves(self) -> None:
        """Nobody waits for that."""

    def tell(self, news: News) -> None:
        """All others are to know."""
        self._say(news)

    def follow(self, table: WorkerTable) -> None:
        """Each worker has its line on the board; who has no word of the supervisor's own is told of the table."""
        self._table = table
        if self.board.name(worker.id for worker in table.workers):
            self._say(Columns(list(self.board.columns)))
        if self._relays:
            self._say(table)

    def renew(self) -> None:
        """So do the others."""
        self._say(Renew())

    async def metrics(self) -> bytes:
        """The sum of all parts. Of a process that does not answer in time it is what it said last."""
        await asyncio.gather(*(self._ask_part(sibling) for sibling in self._siblings))
        own = self._own.app.metrics.part()
        return merge.text(merge.merged([own, *(sibling.part for sibling in self._siblings), self._gone]))

    async def requests(self) -> list[RequestRecord]:
        """The last ones of all."""
        found = await asyncio.gather(*(self._ask(sibling, "requests") for sibling in self._siblings))
        lists = [RECORDS.decode(body) for body in found if body is not None]
        return merge.latest([self._own.app.recent(), *lists], _MAX_RECENT)

    async def drain(self, timeout_s: float) -> bool:
        """They end what they have; those that don't in time are killed."""
        self._stopping = True
        self._watch.cancel()
        self._say(Stop())
        for sibling, task in zip(self._siblings, self._tasks, strict=True):
            if sibling.process is None:
                task.cancel()
        _, late = await asyncio.wait(self._tasks, timeout=timeout_s + _LATE_S)
        for sibling in self._siblings:
            self._kill(sibling)
        await asyncio.wait(self._tasks)
        return not late

    def hurry(self) -> None:
        """They cut what is under way; one that does not is killed."""
        self._say(Stop(hurry=True))
        for sibling in self._siblings:
            asyncio.get_running_loop().call_later(_HURRY_S, self._kill, sibling)

    async def close(self) -> None:
        """The others have ended."""

    def took(self, way: Way, tokens: int, ttft_ms: float) -> None:
        """The others learn from it, too."""
        self._say(Took(way, tokens, ttft_ms))

    def _say(self, message: Message, besides: Sibling | None = None) -> None:
        for sibling in self._siblings:
            if sibling.link is not None and sibling is not besides:
                sibling.link.send(message)

    def _totals(self) -> Iterable[Report]:
        return (self._gone_total, *(sibling.report for sibling in self._siblings))

    async def _keep(self, sibling: Sibling) -> None:
        """Runs it, again whenever it ends."""
        wait_s = _FIRST_WAIT_S
        while not self._stopping:
            if sibling.stand_in is None:
                sibling.stand_in = await self._own.server.listen(sibling.sock.dup(), self._own.tls)
            served, code = await self._run(sibling)
            if not self._stopping:
                wait_s = _FIRST_WAIT_S if served else min(wait_s * 2, _LONGEST_WAIT_S)
                self._log(f"frontend: process {sibling.number} ended ({code}): started again in {wait_s:g} s")
                await asyncio.sleep(wait_s)

    async def _run(self, sibling: Sibling) -> tuple[bool, str]:
        """Once: whether it has served, and how it ended."""
        mine, theirs = socket.socketpair()
        sibling.link = Link(mine, lambda message: self._take(sibling, message))
        reader = await sibling.link.open()
        if self.board.columns:
            sibling.link.send(Columns(list(self.board.columns)))
        if self._table is not None:
            sibling.link.send(self._table)
        try:
            descriptors = (theirs.fileno(), sibling.sock.fileno(), self.board.descriptor)
            sibling.process = subprocess.Popen(  # noqa: ASYNC220 - by this thread, whose end is the process's, too
                [sys.executable, *sys.orig_argv[1:]],
                env={**os.environ, **seat_variable(sibling.number, *descriptors)},
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
            )
        except OSError as error:
            sibling.link.close()
            return False, f"it can't be executed: {error.strerror}"
        finally:
            theirs.close()
        if self._stopping:
            sibling.link.send(Stop())
        await sibling.link.run(reader)
        return self._ended(sibling, await self._reap(sibling.process))

    async def _reap(self, process: subprocess.Popen[bytes]) -> int:
        """Its link is closed, so it ends, or is made to."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return await asyncio.to_thread(process.wait, 1.0)
        process.kill()
        return await asyncio.to_thread(process.wait)

    def _ended(self, sibling: Sibling, code: int) -> tuple[bool, str]:
        served, total, report = sibling.serving, self._gone_total, sibling.report
        self.board.clear(sibling.number)
        self._gone = merge.merged([self._gone, merge.lasting(sibling.part)])
        self._gone_total = msgspec.structs.replace(
            total,
            requests_total=total.requests_total + report.requests_total,
            errors_total=total.errors_total + report.errors_total,
        )
        sibling.process = sibling.link = None
        sibling.serving, sibling.part, sibling.report, sibling.silent = False, [], Report(), 0
        return served, f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _take(self, sibling: Sibling, message: Message) -> None:
        sibling.silent = 0
        match message:
            case Report():
                sibling.report = msgspec.structs.replace(message, requests=())
                for record in message.requests:
                    self._own.outbox.add(record)
            case Serving():
                sibling.serving = True
                if sibling.stand_in is not None:
                    self._own.server.leave(sibling.stand_in)
                    sibling.stand_in = None
                self._log(f"frontend: process {sibling.number} serves, too")
            case Doubted() | Seen() | Took() | Freed():
                hear(self._own.app, message)
                self._say(message, besides=sibling)
            case Want():
                errand = asyncio.get_running_loop().create_task(self._answer(sibling, message))
                self._errands.add(errand)
                errand.add_done_callback(self._errands.discard)
            case _:
                pass

    async def _answer(self, sibling: Sibling, want: Want) -> None:
        if want.what == "metrics":
            body = await self.metrics()
        else:
            body = msgspec.msgpack.encode(await self.requests())
        if sibling.link is not None:
            sibling.link.answer(want, body)

    async def _ask_part(self, sibling: Sibling) -> None:
        process, body = sibling.process, await self._ask(sibling, "metrics")
        if body is not None and sibling.process is process:
            sibling.part = PART.decode(body)

    async def _ask(self, sibling: Sibling, what: What) -> bytes | None:
        if sibling.link is None or not sibling.serving:
            return None
        return await sibling.link.ask(what, _ANSWER_S)

    async def _look(self) -> None:
        """A process that hangs is killed: it takes connections that nobody answers. Counted in looks, not in time, as
        all of them stand still where the machine does."""
        while True:
            await asyncio.sleep(_LOOK_S)
            for sibling in self._siblings:
                sibling.silent += sibling.serving
                if sibling.silent > _SILENT_LOOKS:
                    self._log(f"frontend: process {sibling.number} hangs: killed")
                    self._kill(sibling)

    def _kill(self, sibling: Sibling) -> None:
        if sibling.process is not None:
            sibling.process.kill()
