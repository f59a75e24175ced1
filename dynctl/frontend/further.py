"""A further process of a frontend, as the first one has started it."""

from __future__ import annotations

import asyncio
import os

from dynctl.frontend.alone import Way
from dynctl.frontend.board import Board
from dynctl.frontend.link import Columns, Doubted, Freed, Link, Message, News, Renew, Seen, Serving, Stop, Took, Want
from dynctl.frontend.messages import RequestRecord, WorkerTable
from dynctl.frontend.seat import Seat
from dynctl.frontend.together import RECORDS, Own, hear

_REPORT_S = 0.1
_BEAT = 10
"""Reports left out for want of news until one is made all the same."""
_TABLE_S = 5.0
_ANSWER_S = 5.0


class Further:
    """Follows the first process, and ends with it. `told`: tables come from there always, and not only until the
    supervisor's own do."""

    leads = False

    def __init__(self, board: Board, seat: Seat, *, told: bool) -> None:
        self.board = board
        self._told = told
        self._known = asyncio.Event()
        self._link = Link(seat.link, self._take)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, own: Own) -> None:
        """Hear and report from now on."""
        self._own = own
        reader = await self._link.open()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow(reader)), loop.create_task(self._report())]

    async def known(self) -> None:
        """Returns once there is a table, or nobody has said which workers there are for long."""
        try:
            await asyncio.wait_for(self._known.wait(), _TABLE_S)
        except TimeoutError:
            return

    def serves(self) -> None:
        """The first one need not stand in any longer."""
        self._link.send(Serving())

    def tell(self, news: News) -> None:
        """All others are to know: the first one passes it on."""
        self._link.send(news)

    def follow(self, table: WorkerTable) -> None:
        """It is known which workers there are."""
        self._known.set()

    def renew(self) -> None:
        """Others read anew for themselves."""

    async def metrics(self) -> bytes | None:
        """The first one knows."""
        return await self._link.ask("metrics", _ANSWER_S)

    async def requests(self) -> list[RequestRecord] | None:
        """The first one knows."""
        body = await self._link.ask("requests", _ANSWER_S)
        return None if body is None else RECORDS.decode(body)

    async def drain(self, timeout_s: float) -> bool:
        """The others' end is not this one's."""
        return True

    def hurry(self) -> None:
        """Nor is their hurry."""

    async def close(self) -> None:
        """The last report; then nothing more is said."""
        self._tasks[1].cancel()
        self._say_report()
        await self._link.flush()

    def took(self, way: Way, tokens: int, ttft_ms: float) -> None:
        """The others learn from it, too."""
        self._link.send(Took(way, tokens, ttft_ms))

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        await self._link.run(reader)
        os._exit(1)  # the first process is gone: nobody would start or end this one

    def _take(self, message: Message) -> None:
        match message:
            case Columns():
                self.board.name(message.workers)
            case WorkerTable():
                if self._told or not self._known.is_set():
                    self._own.take(message)
            case Doubted() | Seen() | Took() | Freed():
                hear(self._own.app, message)
            case Renew():
                self._own.renew()
            case Stop():
                self._own.stop(message.hurry)
            case Want():
                self._link.answer(message, self._own.part(message.what))
            case _:
                pass

    async def _report(self) -> None:
        quiet = 0
        while True:
            await asyncio.sleep(_REPORT_S)
            quiet = 0 if self._say_report() else quiet + 1
            if quiet >= _BEAT:
                self._own.outbox.reset()  # say the same again, as a sign of life

    def _say_report(self) -> bool:
        said = False
        while (report := self._own.outbox.take()) is not None:
            self._link.send(report)
            said = True
        return said
