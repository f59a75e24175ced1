"""`dynctl frontend` as the command line declares it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MaxRunning = Annotated[int | None, typer.Option(min=1, help="Requests with the engines at once; more of them wait.")]
DecodeAlone = Annotated[
    str | None, typer.Option(metavar="TOKENS|learn", help="Prompts with fewer tokens to compute go to decode alone.")
]
KvEventsDirectory = Annotated[
    Path | None, typer.Option(metavar="DIRECTORY", help="For kv-aware: the engines' event sockets, kv-ID each.")
]
KeysFile = Annotated[Path | None, typer.Option(help="Keys that clients must send, one a line; or $DYNCTL_API_KEYS.")]
Resume = Annotated[bool, typer.Option("--resume", help="Carry on a stream on another worker when its worker dies.")]
Origins = Annotated[
    list[str], typer.Option(metavar="ORIGIN", help="Web pages that may use it: https://HOST, or *; repeatable.")
]
Processes = Annotated[int, typer.Option("--workers", min=1, max=64, help="Processes that share the port.")]
AccessLogFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Append a JSON line for each request; - is stdout.")
]


def frontend(
    prefill: Annotated[list[str], typer.Option(metavar="URL", help="A prefill worker; repeatable.")] = [],  # noqa: B006
    decode: Annotated[list[str], typer.Option(metavar="URL", help="A decode worker; repeatable.")] = [],  # noqa: B006
    worker: Annotated[list[str], typer.Option(metavar="URL", help="An aggregated worker; repeatable.")] = [],  # noqa: B006
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    uds: Annotated[Path | None, typer.Option(help="Unix socket to listen on, in place of host and port.")] = None,
    workers: Processes = 1,
    control: Annotated[Path | None, typer.Option(hidden=True)] = None,
    api_keys_file: KeysFile = None,
    allow_public: Annotated[bool, typer.Option("--allow-public", help="A public address needs no API key.")] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate chain: https in place of http.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its PEM key.")] = None,
    cors_origin: Origins = [],  # noqa: B006
    access_log: AccessLogFile = None,
    routing: Annotated[str, typer.Option(help="How workers are chosen; see the docs.")] = "round-robin",
    kv_events: KvEventsDirectory = None,
    resume: Resume = False,
    drain_timeout: Annotated[float, typer.Option(min=0, help="Seconds for requests to end on SIGTERM.")] = 20.0,
    prefill_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a prefill leg must be over.")] = 300.0,
    first_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until a stream must begin.")] = 300.0,
    whole_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds until any other answer must come.")] = 1800.0,
    stall_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a stream may stand still.")] = 120.0,
    retry_ratio: Annotated[float, typer.Option(min=0, help="Retries per request, in the long run.")] = 0.2,
    retry_burst: Annotated[float, typer.Option(min=0, help="Retries that may come at once.")] = 64.0,
    max_running: MaxRunning = None,
    max_waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait; more get 429.")] = 256,
    longest_wait: Annotated[float, typer.Option(min=0.01, help="Seconds that one may wait; then 503.")] = 30.0,
    decode_alone: DecodeAlone = None,
) -> None:
    """Run the built-in router alone, in front of workers that run already."""
    from dynctl.frontend.command import serve
    from dynctl.frontend.retry import RetryLimits
    from dynctl.frontend.shaping import read_shaping
    from dynctl.frontend.tls import read_tls
    from dynctl.frontend.watch import Timeouts

    raise typer.Exit(
        serve(
            *(host, port, prefill, decode, worker, control, api_keys_file, drain_timeout),
            allow_public=allow_public,
            timeouts=Timeouts(
                prefill_s=prefill_timeout, first_s=first_timeout, whole_s=whole_timeout, stall_s=stall_timeout
            ),
            retries=RetryLimits(ratio=retry_ratio, burst=retry_burst),
            routing=routing,
            resume=resume,
            kv_events=kv_events,
            shaping=read_shaping(max_running, max_waiting, longest_wait, decode_alone),
            tls=read_tls(tls_cert, tls_key),
            uds=uds,
            cors_origins=cors_origin,
            access_log=access_log,
            processes=workers,
        )
    )
