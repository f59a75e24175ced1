"""The loader: sends a job's requests and notes when each read of an answer came in. Nothing is parsed until later."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable

from dynctl.bench.job import Health, Job, Progress, Result, Session, Shot
from dynctl.bench.sample import Sample
from dynctl.bench.stream import digest, refusal
from dynctl.bench.summary import percentile
from dynctl.bench.wire import Arrivals, wired
from dynctl.http.call import Call, ClientError
from dynctl.http.client import Client
from dynctl.http.message import Headers
from dynctl.http.origin import parse_origin
from dynctl.http.pinned import pinned

PROBE_S = 0.010
REPORT_S = 0.25
SWEEP_S = 0.5
SLICE = 4
"""Answers worked out at a time between reads: a fraction of a millisecond."""
GIVE_UP = 20
"""So many failures in a row, or twice the concurrency: the server is gone."""


class Flight:
    """A request under way: the client's sink. It keeps reads and times, and that is all."""

    __slots__ = ("call", "due_s", "end_s", "error", "last_s", "loader", "reads", "sent_s", "session", "shot", "status")

    def __init__(self, loader: Loader, session: deque[Shot], shot: Shot, due_s: float | None) -> None:
        self.loader, self.session, self.shot, self.due_s = loader, session, shot, due_s
        self.reads: list[tuple[float, bytes]] = []
        self.status = 0
        self.error: str | None = None
        self.call: Call | None = None
        self.sent_s = self.last_s = self.end_s = 0.0

    def on_head(self, status: int, headers: Headers) -> None:
        """The status; fields say nothing here."""
        self.status = status

    def on_body(self, data: bytes) -> None:
        """One read."""
        self.reads.append((self.loader.arrivals.now(), data))

    def on_end(self) -> None:
        """The answer was read to its end."""
        self.loader.landed(self)

    def on_error(self, error: ClientError) -> None:
        """It will not be."""
        self.error = error.message
        self.loader.landed(self)

    def sample(self) -> Sample:
        """What it measured."""
        found = digest(self.reads)
        error = self.error or found.error
        if self.status and self.status != 200:
            error = refusal(self.status, b"".join(data for _, data in self.reads))
        return Sample(
            id=self.shot.id,
            phase=self.shot.phase,
            due_s=self.due_s,
            sent_s=self.sent_s,
            chunk_s=tuple(found.chunk_s),
            end_s=self.end_s,
            input_tokens=found.input_tokens,
            output_tokens=found.output_tokens,
            asked_tokens=self.shot.asked_tokens,
            status=self.status,
            error=error,
        )


class Loader:
    """Runs one job on the running event loop. `tell` gets reports of its progress."""

    def __init__(self, job: Job, tell: Callable[[Progress], None] = lambda _: None) -> None:
        self._job, self._tell = job, tell
        self._origin = parse_origin(job.url)
        self._target = job.path.encode()
        self._headers: Headers = [(name.encode(), value.encode()) for name, value in job.headers]
        self._headers += [(b"content-type", b"application/json"), (b"accept", b"text/event-stream")]
        self.arrivals = Arrivals()
        self._client = Client(connect=wired(self.arrivals, pinned(job.cert)))
        self._waiting: deque[Session] = deque(job.sessions)
        self._late: deque[tuple[Session, float]] = deque()  # an open loop's, above its cap
        self._flying: set[Flight] = set()
        self._landed: deque[Flight] = deque()
        self._samples: list[Sample] = []
        self._lags_ms: list[float] = []
        self._lateness_ms: list[float] = []
        self._chunks = self._done = self._told = self._failures = 0
        self._total = sum(len(session.shots) for session in job.sessions)
        self._left = len(job.sessions)
        self._finished = asyncio.Event()
        self._stopping = False
        self._gave_up: str | None = None

    async def run(self) -> Result:
        """To the job's end, or until `stop`. Raises ClientError where the server can't be reached at all."""
        loop = asyncio.get_running_loop()
        await self._client.open(self._origin, self._job.connections)
        if self._job.begin_s is not None:
            await asyncio.sleep(max(0.0, self._job.begin_s - time.perf_counter()))
        chores = [loop.create_task(chore()) for chore in (self._probe, self._report, self._sweep)]
        gc.collect()
        gc.disable()
        cpu_s, begin_s = time.process_time(), time.perf_counter()
        try:
            self._start(begin_s)
            if self._left:
                await self._finished.wait()
            cpu_s, seconds = time.process_time() - cpu_s, time.perf_counter() - begin_s
        finally:
            gc.enable()
            for chore in chores:
                chore.cancel()
            await self._client.close()
        self._work_out(len(self._landed))
        interrupted = self._stopping or self._done < self._total
        health = self._health(cpu_s, seconds)
        return Result(samples=tuple(self._samples), health=health, interrupted=interrupted, gave_up=self._gave_up)

    def stop(self) -> None:
        """Abort what is under way and end."""
        self._stopping = True
        self._waiting.clear()
        self._late.clear()
        for flight in tuple(self._flying):
            if flight.call is not None:
                flight.call.abort()
            flight.error = "stopped"
            flight.end_s = time.perf_counter()
            self._landed.append(flight)
        self._flying.clear()
        self._finished.set()

    def landed(self, flight: Flight) -> None:
        """A flight's word that it is over: the next request goes out before anything else is done."""
        flight.end_s = time.perf_counter()
        self._flying.discard(flight)
        self._done += 1
        if self._stopping:
            return
        failed = flight.error is not None or flight.status != 200
        self._failures = self._failures + 1 if failed else 0
        if flight.session and not failed:
            self._send(flight.session, None)
        else:
            self._done += len(flight.session)
            self._session_over()
        self._landed.append(flight)
        if self._failures >= max(GIVE_UP, 2 * self._job.concurrency):
            self._gave_up = flight.sample().error
            self.stop()

    def _start(self, begin_s: float) -> None:
        if self._job.sessions and self._job.sessions[0].at_s is not None:
            loop = asyncio.get_running_loop()
            now, self._waiting = loop.time(), deque()
            for session in self._job.sessions:
                at_s = session.at_s or 0.0
                loop.call_at(now + at_s, self._due, session, begin_s + at_s)
            return
        for _ in range(min(self._job.concurrency, len(self._waiting))):
            self._send(deque(self._waiting.popleft().shots), None)

    def _due(self, session: Session, due_s: float) -> None:
        """An open loop's time has come. The timer may be half a millisecond early: then that is when it was due."""
        due_s = min(due_s, time.perf_counter())
        if self._stopping:
            return
        if self._job.concurrency and len(self._flying) >= self._job.concurrency:
            self._late.append((session, due_s))
        else:
            self._send(deque(session.shots), due_s)

    def _send(self, session: deque[Shot], due_s: float | None) -> None:
        shot = session.popleft()
        flight = Flight(self, session, shot, due_s)
        self._flying.add(flight)
        headers = [*self._headers, (b"x-request-id", shot.id.encode())]
        flight.sent_s = time.perf_counter()
        if due_s is not None:
            self._lateness_ms.append((flight.sent_s - due_s) * 1000)
        flight.call = self._client.send(self._origin, "POST", self._target, headers, shot.body, flight)

    def _session_over(self) -> None:
        self._left -= 1
        if self._waiting:
            self._send(deque(self._waiting.popleft().shots), None)
        elif self._late:
            session, due_s = self._late.popleft()
            self._send(deque(session.shots), due_s)
        elif not self._left:
            self._finished.set()

    # chores

    async def _probe(self) -> None:
        """How late the event loop is: every read is late by as much."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(PROBE_S)
            now = time.perf_counter()
            self._lags_ms.append(max(0.0, now - last - PROBE_S) * 1000)
            last = now

    async def _report(self) -> None:
        """Works answers out a few at a time, and tells how far the job is."""
        told = time.perf_counter()
        while True:
            await asyncio.sleep(PROBE_S)
            self._work_out(SLICE)
            if time.perf_counter() - told >= REPORT_S:
                told = time.perf_counter()
                fresh, self._told = self._samples[self._told :], len(self._samples)
                self._tell(Progress(done=self._done, total=self._total, fresh=tuple(fresh)))

    async def _sweep(self) -> None:
        """Fails what does not begin, or stands still."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = time.perf_counter()
            for flight in tuple(self._flying):
                last_s = flight.reads[-1][0] if flight.reads else flight.sent_s
                limit_s = self._job.stall_s if flight.reads else self._job.head_timeout_s
                if now - last_s > limit_s and flight.call is not None:
                    what = "stalled: nothing came for" if flight.reads else "no answer within"
                    flight.call.fail(ClientError("timeout", f"{what} {limit_s:g} s"))

    def _work_out(self, count: int) -> None:
        for _ in range(min(count, len(self._landed))):
            flight = self._landed.popleft()
            self._samples.append(flight.sample())
            self._chunks += len(flight.reads)

    def _health(self, cpu_s: float, seconds: float) -> Health:
        lags, late = sorted(self._lags_ms) or [0.0], sorted(self._lateness_ms)
        return Health(
            lag_p50_ms=percentile(lags, 50),
            lag_p99_ms=percentile(lags, 99),
            lag_max_ms=lags[-1],
            cpu_cores=cpu_s / seconds if seconds > 0 else 0.0,
            seconds=seconds,
            chunks=self._chunks,
            cpu_us_per_chunk=cpu_s * 1e6 / self._chunks if self._chunks else None,
            late_p99_ms=percentile(late, 99) if late else None,
        )
