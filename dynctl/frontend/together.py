"""Several processes as one frontend: what each of them needs of the others."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

import msgspec

from dynctl.frontend.alone import Way
from dynctl.frontend.app import App
from dynctl.frontend.board import Board
from dynctl.frontend.link import Doubted, Freed, News, Seen, Took, What
from dynctl.frontend.merge import Part
from dynctl.frontend.messages import RequestRecord, WorkerTable
from dynctl.frontend.outbox import Outbox
from dynctl.http.server import Server

PART: msgspec.msgpack.Decoder[Part] = msgspec.msgpack.Decoder(Part)
RECORDS: msgspec.msgpack.Decoder[list[RequestRecord]] = msgspec.msgpack.Decoder(list[RequestRecord])


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """This process's own parts. `stop`: as a signal would (with True: where it drains already, too); `renew`: as SIGHUP
    would; `take`: follows a worker table."""

    app: App
    server: Server
    tls: ssl.SSLContext | None
    outbox: Outbox
    stop: Callable[[bool], None]
    renew: Callable[[], None]
    take: Callable[[WorkerTable], None]

    def part(self, what: What) -> bytes:
        """What this process alone has counted, or its last requests."""
        return msgspec.msgpack.encode(self.app.metrics.part() if what == "metrics" else self.app.recent())


class Together(Protocol):
    """One process's view of the others. `leads`: it is the first one, which speaks for all."""

    board: Board
    leads: bool

    async def start(self, own: Own) -> None:
        """Begin, before the first connection is taken."""

    async def known(self) -> None:
        """Returns once connections may be taken."""

    def serves(self) -> None:
        """This process takes connections now."""

    def tell(self, news: News) -> None:
        """All others are to know."""

    def follow(self, table: WorkerTable) -> None:
        """This process was given a new table."""

    def renew(self) -> None:
        """This process reads keys and certificate anew."""

    async def metrics(self) -> bytes | None:
        """Of all processes, in Prometheus text; None where they can't be had."""

    async def requests(self) -> list[RequestRecord] | None:
        """The last ones of all processes; None where they can't be had."""

    async def drain(self, timeout_s: float) -> bool:
        """Whether all others have ended in order."""

    def hurry(self) -> None:
        """What is under way in others is to be cut, too."""

    async def close(self) -> None:
        """The last word, once this one has ended what it had."""

    def took(self, way: Way, tokens: int, ttft_ms: float) -> None:
        """The others learn from it, too."""


def hear(app: App, news: News) -> None:
    """Another process's news."""
    match news:
        case Doubted():
            app.workers.doubt(news.worker, news.failed)
        case Seen():
            app.workers.chooser.saw(news.worker, news.blocks)
        case Took():
            app.learn(news.way, news.tokens, news.ttft_ms)
        case Freed():
            if app.admission is not None:
                app.admission.look()
