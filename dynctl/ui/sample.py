"""The first sample request, taken apart: what `make up` ends with."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from dynctl.frontend.messages import RequestRecord
from dynctl.telemetry.status import PairStatus, RunStatus
from dynctl.ui.bar import bar, legend
from dynctl.ui.figures import UNKNOWN, clean, format_bytes, format_gigabytes_per_s, format_ms, format_s
from dynctl.ui.plain import route
from dynctl.ui.traffic import split_parts
from dynctl.ui.words import VERDICT_STYLE, verdict_words

BAR_WIDTH = 60


def sample_summary(record: RequestRecord, status: RunStatus, *, width: int = BAR_WIDTH) -> RenderableType:
    """TTFT of one request as a bar with its legend, and the path its KV took."""
    head = Text("sample request  ", style="bold")
    head.append(route(record).replace("→", " → "))
    head.append(f"  {record.status}  ", style="green" if record.status < 400 else "bold red")
    head.append(f"TTFT {format_ms(record.ttft_ms)}", style="bold")
    head.append(f"  total {format_s(record.total_ms / 1000)}", style="bright_black")
    parts: list[RenderableType] = [head]
    if record.ttft_ms is not None:
        figures = {"queue": record.queue_ms, "prefill": record.prefill_ms, "handover": record.handover_ms}
        split = split_parts(figures)
        parts += [bar(split, width), legend(split, max(width, 72))]
    if record.error:
        parts.append(Text(clean(record.error), style="red"))
    if record.mode == "disaggregated":
        parts.append(_path(record, status))
    return Group(*parts)


def _path(record: RequestRecord, status: RunStatus) -> Text:
    pair = next((p for p in status.transport.pairs if (p.from_, p.to) == (record.prefill, record.decode)), None)
    pair = pair or PairStatus(from_="", to="", verdict=status.transport.verdict, evidence=status.transport.evidence)
    text = Text("KV path  ", style="bold")
    text.append(verdict_words(pair.verdict, pair.evidence), style=VERDICT_STYLE.get(pair.verdict, ""))
    if pair.bytes is not None or pair.gigabytes_per_s is not None:
        rate = format_gigabytes_per_s(pair.gigabytes_per_s)
        text.append(f"  proven with {format_bytes(pair.bytes)}")
        text.append(f" at {rate}" if rate != UNKNOWN else "")
    return text
