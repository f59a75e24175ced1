"""One line per transition, for logs and pipes; and one line per request."""

from __future__ import annotations

from typing import Literal

from dynctl.frontend.messages import RequestRecord
from dynctl.store.event import Event
from dynctl.ui.figures import clean, format_clock, format_ms, format_s

Clock = Literal["local", "utc"]
_DYNAMO = ("prefill_wait", "prefill_to_first_token")


def plain_line(event: Event, *, clock: Clock = "local") -> str:
    """`17:03:12 prefill-0  loading weights`: when, what it is about, what happened, and why. No colour, one line."""
    return f"{format_clock(event.at, utc=clock == 'utc')} {subject(event):<11}  {message_of(event)}"


def request_line(record: RequestRecord) -> str:
    """`17:03:12 9f3c… /v1/completions prefill-0→decode-0 200 TTFT 62 ms = queue 0 + prefill 31 + handover 31, ...`."""
    parts = [format_clock(record.at), short_id(record.id), clean(record.path), route(record), str(record.status)]
    return " ".join([*parts, _timing(record)])


def short_id(request_id: str) -> str:
    """The part of a request id that tells it apart: no common prefix, eight characters."""
    text = clean(request_id)
    for prefix in ("chatcmpl-", "cmpl-", "req-"):
        text = text.removeprefix(prefix)
    return f"{text[:8]}…" if len(text) > 9 else text


def route(record: RequestRecord) -> str:
    """`prefill-0→decode-0`, `decode-0 alone`, `worker-0`."""
    worker = clean(record.decode or record.prefill or "nowhere")
    if record.mode == "disaggregated" and record.prefill and record.decode:
        return f"{clean(record.prefill)}→{worker}"
    return f"{worker} alone" if record.mode == "decode-only" else worker


def _timing(record: RequestRecord) -> str:
    total = f"total {format_s(record.total_ms / 1000)}"
    if record.ttft_ms is None:
        text = total if record.streamed else f"not streamed, {total}"
    else:
        named: tuple[tuple[str, float | None], ...]
        named = (("queue", record.queue_ms), ("prefill", record.prefill_ms), ("handover", record.handover_ms))
        named = tuple((key.replace("_", " "), record.parts.get(key)) for key in _DYNAMO) if record.parts else named
        split = " + ".join(f"{name} {_bare(value)}" for name, value in named if value is not None)
        text = f"TTFT {format_ms(record.ttft_ms)}{' = ' + split if split else ''}, {total}"
    if record.directed:
        text += ", directed"
    return f"{text}: {clean(record.error)}" if record.error else text


def _bare(milliseconds: float) -> str:
    return format_ms(milliseconds).removesuffix(" ms")


def subject(event: Event) -> str:
    """What an event is about: a process, or the run."""
    return clean(event.process or "run")


def message_of(event: Event) -> str:
    """What happened and why, on one line."""
    message = clean(event.message)
    if event.kind in ("error", "warning") and not message.startswith(event.kind):
        message = f"{event.kind}: {message}"
    why = clean(event.why or "")
    return f"{message} ({why})" if why and why not in message else message
