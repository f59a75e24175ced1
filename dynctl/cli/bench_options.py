"""What `bench` was asked for, as it was typed, and what that means."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from dynctl.bench.aiperf import Aiperf, refuse_keys
from dynctl.bench.aiperf import find as find_aiperf
from dynctl.bench.arrivals import Kind, OpenLoop
from dynctl.bench.lengths import Lengths, parse_lengths
from dynctl.bench.measure import Limits, fresh_nonce
from dynctl.bench.trace import TraceError, TraceRow, read_trace
from dynctl.bench.workload import Workload
from dynctl.errors import UsageError
from dynctl.topology.durations import parse_duration

MAX_TRACE_BYTES = 1 << 30
SLOS = {"ttft": "ttft_ms", "itl": "itl_ms", "latency": "request_latency_ms"}
REQUESTS, REQUESTS_COMPARED, ROUNDS_COMPARED = 200, 150, 5
CONCURRENCY = "4"


class BenchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """As typed; None where nothing was."""

    url: str | None = None
    model: str | None = None
    compare: str | None = None
    aa: bool = False
    together: bool = False
    alternate: bool = False
    concurrency: str | None = None
    rate: str | None = None
    arrivals: str = "poisson"
    burstiness: float | None = None
    ramp: str | None = None
    requests: int | None = None
    rounds: int | None = None
    isl: str = "512"
    osl: str = "64"
    prefix: int = 0
    prefixes: int = 1
    turns: int = 1
    trace: Path | None = None
    speed: float = 1.0
    chat: bool = False
    eos: bool = False
    seed: int = 0
    nonce: str | None = None
    slo: str | None = None
    processes: int = 1
    backend: str = "dynctl"
    tokenizer: str | None = None
    timeout: str = "10m"
    stall: str = "60s"
    api_key_file: Path | None = None
    json: bool = False
    output: Path | None = None
    no_color: bool = False


def workloads(options: BenchOptions, model: str, *, compared: bool) -> list[Workload]:
    """One per load of a sweep. UsageError for what makes no sense."""
    if options.rate and options.trace:
        raise UsageError("a trace has its own times", where="--rate", fix="--speed replays it faster or slower")
    loads: list[tuple[int, OpenLoop | None]]
    if options.rate:
        cap = _counts(options.concurrency, "--concurrency")[0] if options.concurrency else 0
        loads = [(cap, _open(options, rate)) for rate in _rates(options.rate)]
    elif options.trace:
        loads = [(_counts(options.concurrency, "--concurrency")[0] if options.concurrency else 0, None)]
    else:
        loads = [(count, None) for count in _counts(options.concurrency or CONCURRENCY, "--concurrency")]
    if compared and len(loads) > 1:
        raise UsageError("a comparison is made under one load", fix="name one --concurrency or --rate")
    requests = options.requests or (REQUESTS_COMPARED if compared else REQUESTS)
    nonce = options.nonce or fresh_nonce()
    return [
        Workload(
            isl=lengths(options.isl, "--isl"),
            osl=lengths(options.osl, "--osl"),
            requests=requests,
            rounds=options.rounds or (ROUNDS_COMPARED if compared else 1),
            concurrency=concurrency,
            open=loop,
            endpoint="chat" if options.chat or options.turns > 1 else "completions",
            model=model,
            seed=options.seed,
            nonce=f"{nonce}-{number}" if len(loads) > 1 else nonce,
            turns=options.turns,
            prefix_tokens=options.prefix,
            prefixes=options.prefixes,
            ignore_eos=not options.eos,
            trace=str(options.trace) if options.trace else None,
        )
        for number, (concurrency, loop) in enumerate(loads)
    ]


def limits(options: BenchOptions) -> Limits:
    """Time limits and speed."""
    if options.speed <= 0:
        raise UsageError("must be above 0", where="--speed")
    return Limits(
        head_timeout_s=_duration(options.timeout, "--timeout"),
        stall_s=_duration(options.stall, "--stall"),
        speed=options.speed,
    )


def slo_ms(text: str | None) -> dict[str, float]:
    """`ttft=300ms,itl=10ms` in milliseconds by metric; empty for nothing."""
    found: dict[str, float] = {}
    for part in (text or "").split(","):
        name, _, value = part.strip().partition("=")
        if not part.strip():
            continue
        if name not in SLOS or not value:
            raise UsageError(
                f"not an objective: {part.strip()!r}", where="--slo", fix="write it as ttft=300ms,itl=10ms,latency=5s"
            )
        found[SLOS[name]] = _duration(value, "--slo") * 1000
    return found


def trace(options: BenchOptions) -> list[TraceRow]:
    """The trace's rows; none without one. UsageError with file and line for a wrong one."""
    path = options.trace
    if path is None:
        return []
    try:
        if path.stat().st_size > MAX_TRACE_BYTES:
            raise UsageError(f"{path} is larger than 1 GiB", where="--trace", fix="cut it")
        rows = read_trace(path.read_bytes(), round(lengths(options.osl, "--osl").mean))
    except OSError as error:
        raise UsageError(f"can't read {path}", where="--trace", why=error.strerror) from error
    except TraceError as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise UsageError(
            f"the trace {error}",
            where=where,
            fix='Mooncake rows are {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [...]}',
        ) from error
    return rows[: options.requests] if options.requests else rows


def headers(options: BenchOptions) -> dict[str, str]:
    """The key, of a file or $OPENAI_API_KEY: never an argument, which everybody can read."""
    key = os.environ.get("OPENAI_API_KEY", "")
    if options.api_key_file is not None:
        try:
            key = options.api_key_file.read_text().split("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"can't read {options.api_key_file}", where="--api-key-file", why=str(error)) from error
    return {"authorization": f"Bearer {key}"} if key else {}


def aiperf(options: BenchOptions, sent: Mapping[str, str]) -> Aiperf | None:
    """aiperf, where it is asked for instead of our own loader. `sent`: headers of every request."""
    if options.backend == "dynctl":
        return None
    if options.backend != "aiperf":
        raise UsageError(f"not a backend: {options.backend!r}", where="--backend", fix="dynctl or aiperf")
    if options.turns > 1:
        raise UsageError("aiperf is given single turns", where="--turns", fix="leave --backend aiperf out")
    refuse_keys(sent)
    return Aiperf(find_aiperf(), options.tokenizer)


def output_dir(path: Path | None) -> Path | None:
    """The directory, made if need be; looked at before anything long is done."""
    if path is None:
        return None
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".dynctl-bench"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise UsageError(f"can't write to {path}", where="--output", why=error.strerror) from error
    return path


def _open(options: BenchOptions, rate: float) -> OpenLoop:
    kinds: dict[str, Kind] = {"constant": "constant", "poisson": "poisson", "gamma": "gamma"}
    kind = options.arrivals if options.burstiness is None else "gamma"
    if kind not in kinds:
        raise UsageError(f"not a kind of arrivals: {kind!r}", where="--arrivals", fix=", ".join(kinds))
    burstiness = 1.0 if options.burstiness is None else options.burstiness
    if not 0.01 <= burstiness <= 1000:
        raise UsageError("must be between 0.01 and 1000", where="--burstiness", fix="1 is Poisson, less is burstier")
    ramp_s = _duration(options.ramp, "--ramp") if options.ramp else 0.0
    return OpenLoop(rate=rate, kind=kinds[kind], burstiness=burstiness, ramp_s=ramp_s)


def lengths(text: str, where: str) -> Lengths:
    """Lengths as typed in the option `where`."""
    try:
        return parse_lengths(text)
    except ValueError as error:
        raise UsageError(f"{text!r} {error}", where=where) from None


def _duration(text: str, where: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{text!r} {error}", where=where, fix="for example 300ms, 10s or 5m") from None


def _counts(text: str, where: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(1 <= count <= 10_000 for count in found):
        raise UsageError(f"not a count: {text!r}", where=where, fix="from 1 to 10000, or several for a sweep: 1,4,16")
    return found


def _rates(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < rate <= 100_000 for rate in found):
        raise UsageError(
            f"not a rate: {text!r}", where="--rate", fix="requests per second, or several for a sweep: 1,2,4"
        )
    return found
