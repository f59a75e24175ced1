"""A job as aiperf's input, and its per-request export (profile_export.jsonl) as samples. Held against version 0.13."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from dynctl.bench.job import Job, Shot
from dynctl.bench.sample import Sample
from dynctl.bench.stream import refusal

_OWN = {"prompt", "messages", "model", "max_tokens", "stream", "stream_options"}
"""What aiperf puts into a body itself; the rest goes in as it is."""
_KINDS = {"/v1/completions": "completions", "/v1/chat/completions": "chat"}


class _Metric(msgspec.Struct):
    value: Any = None


class _Metadata(msgspec.Struct):
    session_num: int
    request_start_ns: int
    request_end_ns: int
    credit_issued_ns: int | None = None
    was_cancelled: bool = False


class _Error(msgspec.Struct):
    code: int | None = None
    type: str | None = None
    message: str | None = None


class _Row(msgspec.Struct):
    metadata: _Metadata
    metrics: dict[str, _Metric] = {}
    error: _Error | None = None


def dataset(job: Job) -> bytes:
    """aiperf's `single-turn` rows: the very prompts, lengths and times (ms) that bench's own loader would send."""
    return b"".join(_line(session.shots[0], session.at_s) for session in job.sessions)


def _line(shot: Shot, at_s: float | None) -> bytes:
    body = msgspec.json.decode(shot.body)
    text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    extra = {name: value for name, value in body.items() if name not in _OWN}
    row = {"text": text, "output_length": body["max_tokens"], "extra": extra}
    if at_s is not None:
        row["timestamp"] = round(at_s * 1000, 3)
    return msgspec.json.encode(row) + b"\n"


def arguments(job: Job, rows: str, folder: str, tokenizer: str | None) -> list[str]:
    """Of `aiperf`: replays the file `rows`, keeps its export in `folder`."""
    model = str(msgspec.json.decode(job.sessions[0].shots[0].body)["model"])
    argv = ["profile", "--model", model, "--url", job.url, "--streaming", "--endpoint-type", _KINDS[job.path]]
    argv += ["--tokenizer", tokenizer or job.tokenizer or model, "--use-server-token-count"]
    argv += ["--custom-dataset-type", "single-turn", "--input-file", rows, "--dataset-sampling-strategy", "sequential"]
    argv += ["--ui", "none", "--no-gpu-telemetry", "--no-server-metrics", "--artifact-dir", folder]
    argv += ["--request-timeout-seconds", f"{job.head_timeout_s:g}"]
    if job.sessions[0].at_s is not None:
        argv += ["--fixed-schedule"]
        return argv + (["--concurrency", str(job.concurrency)] if job.concurrency else [])
    return [*argv, "--concurrency", str(job.concurrency), "--request-count", str(len(job.sessions))]


def samples(lines: Iterable[bytes], job: Job) -> Iterator[Sample]:
    """What aiperf measured, as if our loader had. msgspec.DecodeError for what is no row of its export."""
    for line in lines:
        row = msgspec.json.decode(line, type=_Row)
        number = row.metadata.session_num
        if 0 <= number < len(job.sessions):
            yield _sample(row, job.sessions[number].shots[0], timed=job.sessions[number].at_s is not None)


def _sample(row: _Row, shot: Shot, *, timed: bool) -> Sample:
    meta = row.metadata
    sent_s = meta.request_start_ns / 1e9
    due_s = meta.credit_issued_ns / 1e9 if timed and meta.credit_issued_ns else None
    first = _number(row, "time_to_first_token")
    gaps = row.metrics["inter_chunk_latency"].value if "inter_chunk_latency" in row.metrics else []
    tokens_in, tokens_out = _number(row, "usage_prompt_tokens"), _number(row, "usage_completion_tokens")
    error = "stopped" if meta.was_cancelled else None
    if row.error is not None and error is None:
        words = row.error.message or row.error.type or "failed"
        error = refusal(row.error.code, words.encode()) if row.error.code else " ".join(words.split())[:200]
    return Sample(
        id=shot.id,
        phase=shot.phase,
        due_s=due_s,
        sent_s=sent_s,
        chunk_s=tuple(_chunks(sent_s, first, gaps)) if first is not None else (),
        end_s=meta.request_end_ns / 1e9,
        input_tokens=int(tokens_in) if tokens_in is not None else None,
        output_tokens=int(tokens_out) if tokens_out is not None else None,
        asked_tokens=shot.asked_tokens,
        status=200 if row.error is None else row.error.code or 0,
        error=error,
    )


def _chunks(sent_s: float, first_ms: float, gaps_ms: Sequence[float]) -> Iterator[float]:
    at = sent_s + first_ms / 1000
    yield at
    for gap_ms in gaps_ms:
        at += gap_ms / 1000
        yield at


def _number(row: _Row, name: str) -> float | None:
    value = row.metrics[name].value if name in row.metrics else None
    return float(value) if isinstance(value, int | float) else None
