"""`dynctl frontend`: the built-in router as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dynctl.counted import counted
from dynctl.errors import UsageError
from dynctl.frontend.access_log import AccessLog
from dynctl.frontend.app import App
from dynctl.frontend.chooser import Chooser
from dynctl.frontend.control import ControlLink
from dynctl.frontend.cors import Cors
from dynctl.frontend.directed import read_token
from dynctl.frontend.errors import refusal_body
from dynctl.frontend.keys import KEYS_VARIABLE, engine_headers, environment_keys, read_keys
from dynctl.frontend.kv_events import KvEvents, sockets_directory
from dynctl.frontend.legs import Handover
from dynctl.frontend.listen import bind, bind_unix, is_loopback, url_of
from dynctl.frontend.messages import RequestRecord, WorkerTable
from dynctl.frontend.outbox import Outbox
from dynctl.frontend.prober import Prober
from dynctl.frontend.retry import RetryLimits
from dynctl.frontend.routing import POLICIES
from dynctl.frontend.shaping import Shaping
from dynctl.frontend.tls import Tls
from dynctl.frontend.tracing import by_environment
from dynctl.frontend.watch import Timeouts
from dynctl.frontend.workers import Workers
from dynctl.http.client import Client
from dynctl.http.origin import parse_origin
from dynctl.http.server import Server


def serve(
    host: str,
    port: int,
    prefill: list[str],
    decode: list[str],
    worker: list[str],
    control: Path | None,
    api_keys_file: Path | None,
    drain_timeout_s: float = 20.0,
    *,
    allow_public: bool = False,
    handover: Handover | None = None,
    timeouts: Timeouts | None = None,
    retries: RetryLimits | None = None,
    routing: str = "round-robin",
    resume: bool = False,
    shaping: Shaping | None = None,
    kv_events: Path | None = None,
    tls: Tls | None = None,
    uds: Path | None = None,
    cors_origins: Sequence[str] = (),
    access_log: Path | None = None,
) -> int:
    """Run the router until SIGTERM or SIGINT; 0 after a drain, whether or not it was complete in time.

    Workers come from the URLs, or from the supervisor's socket `control` (the topology has been checked then).
    `allow_public`: with URLs, an address that others can reach needs no API key. `handover`: the seam between the
    legs, for tests that must see verification fail. `resume`: carry on streams that break off. `shaping`: what is done
    with requests besides. `tls`: https, and no http. `uds`: a unix socket in the place of host and port.
    `cors_origins`: see Cors. `access_log`: see AccessLog. SIGHUP reads keys and certificate anew, and opens the access
    log anew. Raises UsageError for wrong arguments, an unusable file, or a port that is taken.
    """
    import uvloop

    if routing not in POLICIES:
        raise UsageError(f"there is no routing {routing!r}", fix=f"one of {', '.join(POLICIES)}")
    urls = {"prefill": prefill, "decode": decode, "worker": worker}
    _check_workers(urls, control)
    keys = _keys(api_keys_file, control)
    if control is None and not keys and not allow_public and uds is None and not is_loopback(host):
        raise UsageError(
            f"{host} can be reached by others and there is no API key",
            fix=f"give --api-keys-file FILE, set {KEYS_VARIABLE}, or give a loopback address as --host",
        )
    sock = bind_unix(uds) if uds else bind(host, port)
    access = AccessLog(access_log) if access_log else None
    options = (handover, timeouts, retries, routing, resume, shaping, access)
    frontend = Frontend(sock, urls, control, keys, read_token(), *options)
    if routing == "kv-aware":
        frontend.hears(kv_events or sockets_directory())
    frontend.renews(lambda: _keys(api_keys_file, control), tls)
    if cors_origins:
        frontend.let_in(cors_origins)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(frontend.run(drain_timeout_s))
    if uds:
        uds.unlink(missing_ok=True)
    return 0


def _check_workers(urls: dict[str, list[str]], control: Path | None) -> None:
    """UsageError unless they come from one place, and make sense together."""
    if control is None and not (urls["decode"] or urls["worker"]):
        raise UsageError(
            "the router has no worker to send requests to", fix="give --decode URL, --worker URL or --control PATH"
        )
    if control is not None and any(urls.values()):
        raise UsageError("--control and worker URLs exclude each other")
    if urls["worker"] and (urls["prefill"] or urls["decode"]):
        raise UsageError("--worker serves aggregated: it can't be mixed with --prefill and --decode")
    for url in itertools.chain(*urls.values()):
        parse_origin(url)


class Frontend:
    """The parts of the router put together, from the first log line to the last."""

    def __init__(
        self,
        sock: socket.socket,
        urls: dict[str, list[str]],
        control: Path | None,
        keys: tuple[bytes, ...],
        token: bytes | None,
        handover: Handover | None = None,
        timeouts: Timeouts | None = None,
        retries: RetryLimits | None = None,
        routing: str = "round-robin",
        resume: bool = False,
        shaping: Shaping | None = None,
        access: AccessLog | None = None,
    ) -> None:
        self._sock = sock
        self._access = access
        self._tracing = by_environment(log)
        self._urls = urls
        self._control = control
        self._workers = Workers(Chooser(routing))
        self._client = Client()
        self._app = App(
            self._workers,
            self._client,
            keys=keys,
            token=token,
            handover=handover,
            timeouts=timeouts,
            retries=retries,
            engine_headers=engine_headers(),
            resume=resume,
            shaping=shaping,
            access=access,
            tracing=self._tracing,
            on_record=self._record,
        )
        self._outbox = Outbox(self._workers, self._app.metrics, self._app.busy)
        self._link: ControlLink | None = None
        self._read_keys: Callable[[], tuple[bytes, ...]] = lambda: keys
        self._tls: Tls | None = None
        self._server = Server(self._app.handle, error_body=refusal_body)
        self._said = ""
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
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._renew)
        if self._sockets is not None and self._workers.chooser.index is not None:
            self._events = KvEvents(self._sockets, self._workers.chooser.index, log)
        feeder = await self._start_feeder()
        await self._server.listen(self._sock, self._tls.context if self._tls else None)
        log(f"frontend listening on {url_of(self._sock, 'https' if self._tls else 'http')}")
        await stop.wait()
        log(f"frontend stopping: {counted(self._app.metrics.in_flight, 'request')} under way")
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
        log("frontend stopped" if complete else "frontend stopped: requests under way were cut")

    async def _start_feeder(self) -> asyncio.Task[None]:
        """What keeps the worker table: the supervisor's socket, or probes of our own, the first before listening."""
        if self._control is not None:
            self._link = ControlLink(
                self._control,
                self._outbox,
                on_table=self._take_table,
                on_window=lambda window: self._app.metrics.window(window.figures),
                log=log,
            )
            return asyncio.create_task(self._link.run())
        prober = Prober(self._urls, self._client, self._take_table)
        await prober.probe()
        return asyncio.create_task(prober.run())

    async def _drain(self, hurry: asyncio.Event, timeout_s: float) -> bool:
        """Let requests end; a second signal, or `timeout_s`, cuts them."""
        drain = asyncio.create_task(self._server.drain(timeout_s))
        second = asyncio.create_task(hurry.wait())
        await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        if drain.done():
            return await drain
        await self._server.close()
        await drain
        return False

    def _take_table(self, table: WorkerTable) -> None:
        self._app.take(table)
        if self._events is not None:
            self._events.follow(worker.id for worker in table.workers)
        health = self._workers.health()
        said = ", ".join(f"{worker.id} {worker.state}" for worker in self._workers.all()) or "none"
        said = f"workers: {said}; {health.status}" + (f" ({health.reason})" if health.reason else "")
        if said != self._said:
            self._said = said
            log(said)

    def _record(self, record: RequestRecord) -> None:
        if self._control is not None:
            self._outbox.add(record)


def log(line: str) -> None:
    """One line on stdout, at once. A full disk costs the line."""
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _keys(path: Path | None, control: Path | None) -> tuple[bytes, ...]:
    """Of the file and, where no topology says what is needed, of the environment. Raises UsageError."""
    return read_keys(path) + (environment_keys() if control is None else ())
