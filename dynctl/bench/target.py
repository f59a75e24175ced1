"""What is measured: a running deployment, or a URL."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping

import msgspec

from dynctl.bench.ask import engine_sample
from dynctl.bench.job import ID_PREFIX
from dynctl.errors import RunStateError, UsageError
from dynctl.frontend.keys import client_headers
from dynctl.frontend.messages import RequestRecord
from dynctl.http.origin import parse_origin
from dynctl.plan.values import Plan
from dynctl.runtime.client import Connection, SupervisorLost, attach
from dynctl.runtime.messages import Happened
from dynctl.store.run import RunStore, is_supervised
from dynctl.telemetry.window import EngineWindow

FOREVER_S = 1e12


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go. `plan`, `socket`: of a deployment on this machine, whose engines can be asked, too;
    `cert`: what its https frontend shows."""

    label: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    cert: str | None = None
    plan: Plan | None = None
    socket: str | None = None

    @property
    def disaggregated(self) -> bool:
        """Whether KV should move."""
        return self.plan is not None and bool(self.plan.transport.pairs)

    @property
    def gpus(self) -> int:
        """GPUs of its workers; 0 where there are none, or nothing is known."""
        return sum(len(process.gpus) for process in self.plan.workers()) if self.plan else 0

    @property
    def workers(self) -> int:
        """How many workers it has; 0 where nothing is known."""
        return len(self.plan.workers()) if self.plan else 0


def by_url(url: str, headers: Mapping[str, str]) -> Target:
    """A target that nothing is known of but its URL. A trailing /v1 is taken off. UsageError for what is no URL."""
    base = url.rstrip("/").removesuffix("/v1").rstrip("/")
    parse_origin(base)
    return Target(label=base, url=base, headers=tuple(headers.items()))


def by_run(store: RunStore, headers: Mapping[str, str], label: str | None = None) -> Target:
    """A run of this machine; without `headers` it is sent a key of its own. RunStateError when it is not running."""
    if not is_supervised(store.name):
        raise RunStateError(f"the run `{store.name}` is not running", fix=f"`dynctl up {store.name}` starts it")
    plan = store.plan()
    if not plan.frontend_url:
        raise UsageError(f"the run `{store.name}` has no frontend here", fix="run bench on the frontend's node")
    return Target(
        label=label or store.name,
        url=plan.frontend_url,
        headers=tuple((headers or client_headers(plan.frontend_keys)).items()),
        cert=plan.frontend_cert,
        plan=plan,
        socket=store.record().socket,
    )


class Meter:
    """A target's own numbers while it is measured: its engines' counters, and the frontend's record of each request."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.windows: dict[str, EngineWindow] = {}
        self.records: dict[str, RequestRecord] = {}
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to gather records, and takes the engines' first sample."""
        if self._target.plan is None:
            return
        self.windows = {process.id: EngineWindow(FOREVER_S) for process in self._target.plan.workers()}
        self.sample()
        if self._target.socket:
            self._connection = attach(self._target.socket, requests=True)
            self._thread = threading.Thread(target=self._gather, args=(self._connection,), daemon=True)
            self._thread.start()

    def sample(self) -> None:
        """Asks the engines for their counters."""
        if self._target.plan is None:
            return
        for process_id, window in self.windows.items():
            probes = self._target.plan.process(process_id).probes
            if probes.url and probes.metrics and (taken := engine_sample(f"{probes.url}{probes.metrics}")):
                window.add(taken)

    def stop(self) -> None:
        """The last sample; no more records."""
        self.sample()
        if self._connection is not None:
            self._connection.shut()
        if self._thread is not None:
            self._thread.join(5.0)
        if self._connection is not None:
            self._connection.close()
        self._connection = self._thread = None

    def _gather(self, connection: Connection) -> None:
        with contextlib.suppress(SupervisorLost, msgspec.MsgspecError):
            while True:
                for message in connection.read():
                    if isinstance(message, Happened) and message.event.kind == "request":
                        record = msgspec.convert(message.event.data, RequestRecord)
                        if record.id.startswith(ID_PREFIX):
                            self.records[record.id] = record
