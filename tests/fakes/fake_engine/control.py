"""What a test can make the fake engine do, and how it says so.

Each field of `Knobs` is set by the environment (`FAKE_ENGINE_TOKEN_DELAY_MS=5`) or, live, by a JSON file named by
`FAKE_ENGINE_CONTROL` that is read again for each request. In the file, keys `prefill`, `decode`, `both`, `worker` and
HTTP ports (`"8101"`) hold knobs for those engines alone; the narrower one wins. An unknown knob is an error.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec

PREFIX = "FAKE_ENGINE_"
_NOT_KNOBS = {"CONTROL", "RECORD"}
_ROLES = ("prefill", "decode", "both", "worker")


class Knobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Behaviour on demand; the defaults are a healthy, instant engine."""

    # Start-up. Phases are those of startup.PHASES.
    start_delay_s: float = 0.0  # spread over the phases
    die_at_phase: str | None = None
    die_message: str | None = None  # written to the log before dying
    exit_code: int = 1
    hang_at_phase: str | None = None  # say nothing more and never become ready
    segment: bool = False  # the worker makes a segment of shared memory, and leaves it
    # Time of a request's parts.
    queue_delay_ms: float = 0.0
    prefill_delay_ms: float = 0.0  # wherever a prompt is computed
    transfer_delay_ms: float = 0.0  # of a KV transfer
    first_token_delay_ms: float = 0.0  # of the decode step that makes the first token
    token_delay_ms: float = 0.0  # between tokens
    # Faults of requests. Requests are counted from 1, over this process's life.
    fail_status: int | None = None  # answer with this status and an error body
    fail_first: int | None = None  # with fail_status: only the first so many requests
    fail_after_tokens: int | None = None  # an error event inside the stream
    hang_on_request: int | None = None  # that request never gets an answer
    crash_on_request: int | None = None  # everything dies when that request arrives
    crash_after_tokens: int | None = None  # everything dies in the middle of a stream
    wrong_token: int | None = None  # the output token at this index (from 0) is another one
    no_transfer: bool = False  # a decode worker ignores the hand-over and prefills by itself
    # The rest.
    health_status: int = 200
    stuck: bool = False  # from now on no token for anybody, while /health and /metrics answer: a deadlocked engine
    garbage: bool = False  # whatever is asked, what comes back is no HTTP
    term_delay_s: float = 0.0  # from SIGTERM to the end
    term_segment: bool = False  # makes a segment of shared memory at SIGTERM, and leaves it
    core_exit_delay_s: float = 0.5  # from the engine core's death to the server's own end
    ucx_class: str | None = None  # cma | tcp | rdma | nvlink: what the UCX log claims
    lease_s: float | None = None


class Control:
    """Reads the knobs for one engine."""

    def __init__(self, role: str, port: int) -> None:
        self._keys = (role, str(port))
        path = os.environ.get(PREFIX + "CONTROL")
        self._file = Path(path) if path else None
        names = [n for n in os.environ if n.startswith(PREFIX) and n.removeprefix(PREFIX) not in _NOT_KNOBS]
        self._from_environment = {n.removeprefix(PREFIX).lower(): os.environ[n] for n in names}

    def read(self) -> Knobs:
        """The knobs as they are now."""
        values: dict[str, Any] = dict(self._from_environment)
        if self._file is not None and self._file.exists():
            document = json.loads(self._file.read_text() or "{}")
            sections = {k: document.pop(k) for k in list(document) if k in _ROLES or k.isdigit()}
            values.update(document)
            for key in self._keys:
                values.update(sections.get(key, {}))
        return msgspec.convert(values, Knobs, strict=False)
