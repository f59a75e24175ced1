"""The router as a process: its parts put together, from the first log line to the last."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from dynctl.counted import counted
from dynctl.errors import UsageError
from dynctl.frontend.access_log import AccessLog
from dynctl.frontend.app import App
from dynctl.frontend.control import ControlLink
from dynctl.frontend.cors import Cors
from dynctl.frontend.errors import refusal_body
from dynctl.frontend.keys import engine_headers
from dynctl.frontend.kv_events import KvEvents
from dynctl.frontend.legs import Handover
from dynctl.frontend.listen import url_of
from dynctl.frontend.messages import RequestRecord, WorkerTable
from dynctl.frontend.outbox import Outbox
from dynctl.frontend.prober import Prober
from dynctl.frontend.retry import RetryLimits
from dynctl.frontend.several import places_of, workers_of
from dynctl.frontend.shaping import Shaping
from dynctl.frontend.tls import Tls
from dynctl.frontend.together import Own, Together
from dynctl.frontend.tracing import by_environment
from dynctl.frontend.watch import Timeouts
from dynctl.http.client import Client
from dynctl.http.server import Server


class Options(NamedTuple):
    """What requests are done with, as `serve` says it."""

    handover: Handover | None = None
    timeouts: Timeouts | None = None
    retries: RetryLimits | None = None
    routing: str = "round-robin"
    resume: bool = False
    shaping: Shaping | None = None
    access: AccessLog | None = None


class Frontend:
    """The parts of the router put together, from the first log line to the last."""

    def __init__(
        self,
        sock: socket.socket,
        urls: dict[str, list[str]],
        control: Path | None,
        keys: tuple[bytes, ...],
        token: bytes | None,
        options: Options,
        together: Together | None = None,
    ) -> None:
        self._sock = sock
        self._access = options.access
        self._tracing = by_environment(log)
        self._urls = urls
        self._control = control
        self._together = together
        self._leads = together is None or together.leads
        self._workers = workers_of(options.routing, together)
        self._client = Client()
        self._app = App(
            self._workers,
            self._client,
            keys=keys,
            token=token,
            handover=options.handover,
            timeouts=options.timeouts,
            retries=options.retries,
            engine_headers=engine_headers(),
            resume=options.resume,
            shaping=options.shaping,
            access=options.access,
            tracing=self._tracing,
            on_record=self._record,
            whole=together,
            bucket=together.board.budget if together else None,
            places=places_of(options.shaping, together),
        )
        self._outbox = Outbox(self._workers, self._app.metrics, self._app.busy)
        self._link: ControlLink | None = None
        self._read_keys: Callable[[], tuple[bytes, ...]] = lambda: keys
        self._tls: Tls | None = None
        self._server = Server(self._app.handle, error_body=refusal_body)
        self._said = ""
        self._stop = asyncio.Event()
        self._sockets: Path | None = None
        self._events: KvEvents | None = None

    def renews(self, read_keys: Callable[[], tuple[bytes, ...]], tls: Tls | None) -> None:
        """What SIGHUP reads anew; `tls` is what it listens with."""
        self._read_keys = read_keys
        self._tls = tls

    def let_in(self, origins: Sequence[str]) -> None:
        """Web pages of these origins may use it. UsageError for what is no origin."""
        self._server.handler = Cors(self._server.handler, origins).handle

    def _renew(self) -> None:
        """Take keys and certificate as they are now; what can't be used is said, and the old goes on."""
        if self._together is not None:
            self._together.renew()
        try:
            self._app.take_keys(self._read_keys())
            if self._tls is not None:
                self._tls.reload()
            if self._access is not None:
                self._access.reopen()
        except UsageError as error:
            log(f"frontend goes on with what it has: {'; '.join(error.lines())}")
        else:
            log("frontend: keys and certificate read anew")

    def hears(self, sockets: Path) -> None:
        """Where the engines tell of their caches."""
        self._sockets = sockets

    async def run(self, drain_timeout_s: float) -> None:
        """Serve until a signal, then drain."""
        stop = self._stop
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._renew)
        if self._sockets is not None and self._workers.chooser.index is not None:
            self._events = KvEvents(self._sockets, self._workers.chooser.index, log)
        tls = self._tls.context if self._tls else None
        feeder = await self._start_feeder()
        if self._together is not None:
            await self._together.start(self._own(tls))
            await self._together.known()
        await self._server.listen(self._sock, tls)
        self._tell(f"frontend listening on {url_of(self._sock, 'https' if tls else 'http')}")
        if self._together is not None:
            self._together.serves()
        await stop.wait()
        self._tell(f"frontend stopping: {counted(self._outbox.in_flight, 'request')} under way")
        stop.clear()
        self._outbox.leaving = True
        if self._link is not None:
            await self._link.flush()
        complete = await self._drain(stop, drain_timeout_s)
        if self._link is not None:
            await self._link.flush()
        feeder.cancel()
        await asyncio.gather(feeder, return_exceptions=True)
        if self._events is not None:
            await self._events.close()
        await self._client.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        if self._together is not None:
            await self._together.close()
        self._tell("frontend stopped" if complete else "frontend stopped: requests under way were cut")

    def _own(self, tls: ssl.SSLContext | None) -> Own:
        """What the other processes may ask of this one."""

        def stop(hurry: bool) -> None:
            if hurry or not self._outbox.leaving:
                self._stop.set()

        return Own(
            app=self._app,
            server=self._server,
            tls=tls,
            outbox=self._outbox,
            stop=stop,
            renew=self._renew,
            take=self._take_table,
        )

    def _tell(self, line: str) -> None:
        """Log what one of several processes says for all."""
        if self._leads:
            log(line)

    async def _start_feeder(self) -> asyncio.Task[None]:
        """What keeps the worker table: the supervisor's socket, or probes of our own, the first before listening."""
        if self._control is not None:
            self._link = ControlLink(
                self._control,
                self._outbox if self._leads else None,
                on_table=self._take_table,
                on_window=lambda window: self._app.metrics.window(window.figures),
                log=log,
            )
            return asyncio.create_task(self._link.run())
        if not self._leads:
            return asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
        prober = Prober(self._urls, self._client, self._take_table)
        await prober.probe()
        return asyncio.create_task(prober.run())

    async def _drain(self, hurry: asyncio.Event, timeout_s: float) -> bool:
        """Let requests end; a second signal, or `timeout_s`, cuts them."""
        drain = asyncio.create_task(self._end(timeout_s))
        second = asyncio.create_task(hurry.wait())
        await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        if drain.done():
            return await drain
        if self._together is not None:
            self._together.hurry()
        await self._server.close()
        await drain
        return False

    async def _end(self, timeout_s: float) -> bool:
        """This process's requests, and those of the others, at the same time."""
        if self._together is None:
            return await self._server.drain(timeout_s)
        return all(await asyncio.gather(self._server.drain(timeout_s), self._together.drain(timeout_s)))

    def _take_table(self, table: WorkerTable) -> None:
        if self._together is not None:
            self._together.follow(table)
        self._app.take(table)
        if self._events is not None:
            self._events.follow(worker.id for worker in table.workers)
        health = self._workers.health()
        said = ", ".join(f"{worker.id} {worker.state}" for worker in self._workers.all()) or "none"
        said = f"workers: {said}; {health.status}" + (f" ({health.reason})" if health.reason else "")
        if said != self._said:
            self._said = said
            self._tell(said)

    def _record(self, record: RequestRecord) -> None:
        if self._control is not None:
            self._outbox.add(record)


def log(line: str) -> None:
    """One line on stdout, at once. A full disk costs the line."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
