"""`dynctl frontend`: the built-in router as a process of its own."""

from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Sequence
from pathlib import Path

from dynctl.errors import UsageError
from dynctl.frontend.access_log import AccessLog
from dynctl.frontend.directed import read_token
from dynctl.frontend.keys import KEYS_VARIABLE, environment_keys, read_keys
from dynctl.frontend.kv_events import sockets_directory
from dynctl.frontend.legs import Handover
from dynctl.frontend.listen import is_loopback
from dynctl.frontend.process import Frontend, Options, log
from dynctl.frontend.retry import RetryLimits
from dynctl.frontend.routing import POLICIES
from dynctl.frontend.several import gather
from dynctl.frontend.shaping import Shaping
from dynctl.frontend.tls import Tls
from dynctl.frontend.watch import Timeouts
from dynctl.http.origin import parse_origin

_COLLECT_AFTER = 100_000
"""Objects more than at the collector's last look."""


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
    processes: int = 1,
) -> int:
    """Run the router until SIGTERM or SIGINT; 0 after a drain, whether or not it was complete in time.

    Workers come from the URLs, or from the supervisor's socket `control` (the topology has been checked then).
    `allow_public`: with URLs, an address that others can reach needs no API key. `handover`: the seam between the
    legs, for tests that must see verification fail. `resume`: carry on streams that break off. `shaping`: what is done
    with requests besides. `tls`: https, and no http. `uds`: a unix socket in the place of host and port.
    `cors_origins`, `access_log`: see Cors, AccessLog. `processes`: so many share the port. SIGHUP reads keys and
    certificate anew, and opens the access log anew. UsageError for wrong arguments, unusable files, or a taken port.
    """
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
    sock, together = gather(host, port, uds, processes, supervised=control is not None, limits=retries, log=log)
    access = AccessLog(access_log) if access_log else None
    options = Options(handover, timeouts, retries, routing, resume, shaping, access)
    frontend = Frontend(sock, urls, control, keys, read_token(), options, together)
    if routing == "kv-aware":
        frontend.hears(kv_events or sockets_directory())
    frontend.renews(lambda: _keys(api_keys_file, control), tls)
    if cors_origins:
        frontend.let_in(cors_origins)
    _run(frontend, drain_timeout_s)
    if uds and (not together or together.leads):
        uds.unlink(missing_ok=True)
    return 0


def _run(frontend: Frontend, drain_timeout_s: float) -> None:
    import uvloop

    # What an engine answers leaves no cycles, so there is little to find, and a look at all that lives stops hundreds
    # of streams for ten milliseconds.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(frontend.run(drain_timeout_s))


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


def _keys(path: Path | None, control: Path | None) -> tuple[bytes, ...]:
    """Of the file and, where no topology says what is needed, of the environment. Raises UsageError."""
    return read_keys(path) + (environment_keys() if control is None else ())
