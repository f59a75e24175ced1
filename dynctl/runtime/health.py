"""Whether a ready process still serves: its health probe, and a token where no traffic shows that it makes them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import math
import os
import random
import time
import uuid
from collections.abc import Callable
from typing import Protocol

import psutil

from dynctl.engines.spec import Canary
from dynctl.http.call import ClientError
from dynctl.http.client import Client, Response
from dynctl.http.message import Headers
from dynctl.http.origin import Origin, parse_origin
from dynctl.plan.values import HealthRules
from dynctl.runtime.beat import last_beat
from dynctl.runtime.managed import Managed
from dynctl.runtime.secret import ENGINE_VARIABLE

CANARY_ID = "dynctl-canary-"
"""How the X-Request-Id of every canary begins."""
ANSWER_SHARE = 0.75
"""The part of a period that an answer may take: asked once in a period, a stall shows well within two of them."""
BEATS = 10
"""A period has so many moments at which checks are begun: those of many workers fall together."""


_OUT_OF = {os.strerror(number) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)}


class CannotTell(Exception):
    """The fault is the supervisor's own (no file descriptors, it was frozen): nothing is known of the process."""


class Traffic(Protocol):
    """What is known of users' requests; it is told what canaries add to an engine's figures."""

    def worked_at(self, process_id: str) -> float:
        """When the frontend last reported a request that the worker served: monotonic seconds."""

    def counts_canaries(self, process_id: str) -> bool:
        """Whether it must be told of canaries there."""

    def canary_begins(self, process_id: str) -> None:
        """A canary is sent there."""

    def canary_ends(self, process_id: str, metrics: str | None, *, answered: bool) -> None:
        """It has ended; the engine's metrics right after its token, where they could be had."""


class HealthCheck:
    """Checks one process once in a period. The canary is left out while the frontend sees the process work.

    Nothing here goes through the frontend, so that no figure of it counts a canary; the engine's own do, so that
    `traffic` is told. `apart`: why a worker does not have all its parts.
    """

    def __init__(
        self,
        process: Managed,
        client: Client,
        rules: HealthRules,
        traffic: Traffic,
        apart: Callable[[str], str | None] = lambda process: None,
    ) -> None:
        self._process, self._client, self._traffic, self._apart = process, client, traffic, apart
        self._period_s, self._limit_s = rules.canary_s, rules.canary_s * ANSWER_SHARE
        self._beat_s = self._period_s / BEATS
        self._asked_at = self._probed_at = float("-inf")

    @functools.cached_property
    def _origin(self) -> Origin:
        return parse_origin(self._process.spec.probes.url or "")

    async def sleep(self, *, thorough: bool) -> None:
        """Until the next check is due. `thorough`: it is not known to be well, so that it is soon."""
        if thorough:
            await asyncio.sleep(self._period_s / 2)
            return
        while (left_s := self._left_s()) > 0:  # noqa: ASYNC110 - traffic puts it off, and nothing tells of its end
            await asyncio.sleep(left_s)

    def proven(self) -> None:
        """It has just shown that it serves: its checks are due within a period, not all workers' at the same time.

        They are half a period apart, so that both go over one connection, which servers close when it is idle.
        """
        chance = random.random() / 2  # noqa: S311 - no secret
        self._probed_at = last_beat(time.monotonic() - chance * self._period_s, self._beat_s)
        self._asked_at = self._probed_at - self._period_s / 2

    async def look(self, *, thorough: bool) -> str | None:
        """What is wrong with it, in words; None when it is well. CannotTell. `thorough`: whatever was seen recently."""
        if problem := self._apart(self._process.id):
            return problem
        now = time.monotonic()
        if thorough or self._probe_due() <= now:
            self._probed_at = now
            if problem := await self._probe():
                return problem + await asyncio.to_thread(self._stopped)
        if thorough or self._canary_due() <= now:
            self._asked_at = now
            if problem := await self._canary():
                return problem + await asyncio.to_thread(self._stopped)
        return None

    def _left_s(self) -> float:
        return min(self._probe_due(), self._canary_due()) - time.monotonic()

    def _probe_due(self) -> float:
        return self._beat(self._probed_at + self._period_s)

    def _canary_due(self) -> float:
        """Once in a period, as long as no traffic shows that it works."""
        return self._beat(
            max(self._asked_at + self._period_s, self._traffic.worked_at(self._process.id) + self._period_s / 2)
        )

    def _beat(self, at_s: float) -> float:
        """Rather too early than too late."""
        return last_beat(at_s, self._beat_s) if math.isfinite(at_s) else at_s

    async def _probe(self) -> str | None:
        probes = self._process.spec.probes
        if not (probes.url and probes.health):
            return None
        try:
            answer = await self._fetch("GET", probes.health, b"")
        except ClientError as error:
            return f"{probes.health}: {error}"
        return None if answer.status == 200 else f"{probes.health} answers {answer.status}"

    async def _canary(self) -> str | None:
        canary = self._process.spec.probes.canary
        if canary is None:
            return None
        process_id, metrics, answered = self._process.id, None, False
        if not self._traffic.counts_canaries(process_id):
            return (await self._ask(canary))[1]
        self._traffic.canary_begins(process_id)
        try:
            answered, problem = await self._ask(canary)
            metrics = await self._metrics() if answered else None
        finally:
            self._traffic.canary_ends(process_id, metrics, answered=answered)
        return problem

    async def _ask(self, canary: Canary) -> tuple[bool, str | None]:
        """Whether its token came, and what is wrong with the engine."""
        counted: list[asyncio.Task[float | None]] = []
        # an engine that takes long over its canary may have a queue, where others come first: are their tokens made?
        slow = asyncio.get_running_loop().call_later(
            self._limit_s / 2, lambda: counted.append(asyncio.create_task(self._tokens(canary.tokens)))
        )
        try:
            answer = await self._fetch("POST", canary.path, canary.body.encode())
        except ClientError as error:
            before = await counted[0] if error.kind == "timeout" and counted else None
            if before is not None:
                after = await self._tokens(canary.tokens)
                if after is not None and after > before:
                    return False, None  # busy with others' tokens
            return False, f"no token: {error}"
        finally:
            slow.cancel()
            for task in counted:
                task.cancel()
        good = answer.status == 200
        return good, None if good else f"no token: {canary.path} answers {answer.status}"

    async def _tokens(self, counter: str | None) -> float | None:
        """The engine's count of tokens, over its ranks; None when it does not say."""
        if not counter or (text := await self._metrics()) is None:
            return None
        total = 0.0
        for line in text.splitlines():
            if line.startswith(counter):
                with contextlib.suppress(ValueError):
                    total += float(line.rpartition(" ")[2])
        return total

    async def _metrics(self) -> str | None:
        """The engine's /metrics; None where it can't be had."""
        path = self._process.spec.probes.metrics
        if not path:
            return None
        try:
            answer = await self._fetch("GET", path, b"", self._limit_s / 4)
        except ClientError:
            return None
        return answer.body.decode(errors="replace") if answer.status == 200 else None

    async def _fetch(self, method: str, path: str, body: bytes, limit_s: float | None = None) -> Response:
        headers: Headers = [(b"x-request-id", f"{CANARY_ID}{uuid.uuid4().hex[:12]}".encode())]
        if key := self._process.spec.env.get(ENGINE_VARIABLE):
            headers.append((b"authorization", f"Bearer {key}".encode()))
        if body:
            headers.append((b"content-type", b"application/json"))
        limit_s, started = limit_s or self._limit_s, time.monotonic()
        try:
            return await self._client.fetch(self._origin, method, path.encode(), headers, body, timeout_s=limit_s)
        except ClientError as error:
            if error.message in _OUT_OF or time.monotonic() - started > 2 * limit_s:
                raise CannotTell(error.message) from error
            raise

    def _stopped(self) -> str:
        """Names members of its tree that a signal stopped: nothing else tells that from a deadlock."""
        for member in self._process.processes():
            with contextlib.suppress(psutil.Error):
                if member.status() == psutil.STATUS_STOPPED:
                    return f" ({member.name()}, pid {member.pid}, is stopped by a signal)"
        return ""
